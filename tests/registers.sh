#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# registers.sh BUILD ARCH [RUNNER]: the register probe on every route, and exactly as many registers
# as the architecture and the processor have.
set -eu
build=$1 arch=$2 run=${3:-}
receive="$run"
if [ -n "$run" ]; then receive="env QEMU_STACK_SIZE=268435456 $run"; fi
tmp=$(mktemp -d)
pid=
trap 'if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; fi; rm -rf "$tmp"' EXIT

# Registers that were verified, or what was lost.
expect() {
	case $2 in
	"ok $1 registers") echo "$3: $2" ;;
	*)
		echo "$3: expected $1 registers: $2"
		exit 1
		;;
	esac
}

# by_file COUNT PROBE [OPTION...]
by_file() {
	local n=$1 probe=$2
	shift 2
	rm -f "$tmp/image.tf"
	$run "$build/probes/$probe" "$tmp/image.tf" "$@"
	expect "$n" "$($receive "$build/bin/telefork-pad" restore "$tmp/image.tf")" "$probe, file $*"
}

# by_socket COUNT PROBE ADDRESS
by_socket() {
	local n=$1 probe=$2 address
	mkfifo "$tmp/address"
	$receive "$build/bin/telefork-pad" serve --insecure "$3" >"$tmp/address" 2>"$tmp/log" &
	pid=$!
	read -r address <"$tmp/address"
	rm "$tmp/address"
	for seed in 1 2 3; do
		expect "$n" "$($run "$build/probes/$probe" "$address" --seed $seed)" "$probe, $address"
	done
	kill "$pid"
	wait "$pid" || true
	pid=
}

case $arch in
x86_64)
	# 16 general, rip, rflags, two bases; fcw fsw ftw mxcsr st0-7; 16 vectors.
	n=$((20 + 12 + 16))
	if [ -n "$run" ]; then
		n=$((n + 1)) # QEMU's own processor: AVX2 and PKRU
	else
		if grep -qw ospke /proc/cpuinfo; then n=$((n + 1)); fi
		if grep -qw avx512f /proc/cpuinfo; then n=$((n + 16 + 8)); fi
	fi
	;;
aarch64)
	# x0-x30 sp pc nzcv; tpidr_el0; fpcr fpsr; z0-31, p0-15, ffr at any length.
	n=$((34 + 1 + 2 + 32 + 17))
	for bytes in 16 32 64; do
		by_file "$n" registers-pie --vector-length $bytes --seed $bytes
	done
	# Without SVE: v0-31.
	if [ -n "$run" ]; then
		plain=$run
		run="$run -cpu cortex-a57" receive="$receive -cpu cortex-a57"
		by_file $((n - 17)) registers-pie
		run=$plain receive="env QEMU_STACK_SIZE=268435456 $run"
	fi
	;;
esac
for way in static pie dyn; do
	by_file "$n" registers-$way --seed 7
done
by_socket "$n" registers-pie "unix:$tmp/socket"
by_socket "$n" registers-pie tcp://127.0.0.1:0
