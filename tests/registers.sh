#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# registers.sh BUILD ARCH [RUNNER]: the register probe on every route, and exactly as many registers
# as the architecture and the processor have.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$1 arch=$2 emulator=${3-}
runner ${3+"$3"}

# verified COUNT SAID WAY: so many registers, or what was lost.
verified() {
	[ "$2" = "ok $1 registers" ] || fail "$3: expected $1 registers: $2"
	echo "$3: $2"
}

# by_file COUNT PROBE [OPTION...]
by_file() {
	local n=$1 probe=$2
	shift 2
	rm -f "$tmp/image.tf"
	"${run[@]}" "$build/probes/$probe" "$tmp/image.tf" "$@"
	verified "$n" "$("${receive[@]}" "$build/bin/telefork-pad" restore "$tmp/image.tf")" "$probe, file $*"
}

# by_socket COUNT PROBE ADDRESS
by_socket() {
	local n=$1 probe=$2
	receiver serve "${receive[@]}" "$build/bin/telefork-pad" serve --insecure "$3"
	for seed in 1 2 3; do
		verified "$n" "$("${run[@]}" "$build/probes/$probe" "$address" --seed $seed)" "$probe, $address"
	done
	kill "$server"
	wait "$server" || true
}

case $arch in
x86_64)
	# 16 general, rip, rflags, two bases; fcw fsw ftw mxcsr st0-7; 16 vectors.
	n=$((20 + 12 + 16))
	if [ -n "$emulator" ]; then
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
	if [ -n "$emulator" ]; then
		runner "$emulator" -cpu cortex-a57
		by_file $((n - 17)) registers-pie
		runner "$emulator"
	fi
	;;
esac
for way in static pie dyn; do
	by_file "$n" registers-$way --seed 7
done
by_socket "$n" registers-pie "unix:$tmp/socket"
by_socket "$n" registers-pie tcp://127.0.0.1:0
