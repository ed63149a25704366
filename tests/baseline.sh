#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# baseline.sh [RUNNER]: an x86_64 program goes to lesser processors (QEMU user mode's models). As it is
# it is refused with all that is missing, and with a remedy that is then followed; started by "telefork
# run --baseline" it goes. RUNNER runs the program where it comes from (qemu-x86_64 -cpu max).
set -eu
build=build/x86_64
read -ra here <<<"${1-}"
telefork=$build/bin/telefork
if [ "$(uname -m)" != x86_64 ]; then
	echo "skip: telefork run has to be native to the machine, which is no x86_64"
	exit 0
fi
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
server=

# serve MODEL: a receiver that goes on until the next.
serve() {
	model=$1
	[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null || true
	rm -f "$tmp/socket"
	runner qemu-x86_64 -cpu "$1"
	receiver serve "${receive[@]}" $build/bin/telefork-pad serve "unix:$tmp/socket"
}

# go PROBE COMMAND...: runs "COMMAND... PROBE address" and keeps what it said. Where the program's
# addresses happen to be the emulator's, a fresh receiver is the way out.
go() {
	local probe=$1 rc
	shift
	for _ in 1 2 3 4 5 6; do
		rc=0
		said=$("$@" "${here[@]}" $build/probes/"$probe" "$address" 2>&1) || rc=$?
		grep -q TELEFORK_E_COLLISION <<<"$said" || break
		serve "$model"
	done
	return $rc
}

# follows MODEL BASELINE: refused, by name; helped by both remedies.
follows() {
	local missing line name
	serve "$1"
	if go hop-static env; then
		echo "skip: this processor has nothing that qemu-x86_64 -cpu $1 lacks: $said"
	else
		grep -q TELEFORK_E_INCOMPATIBLE <<<"$said" || fail "not refused by name: $said"
		missing=$(sed -n 's/.*the processor lacks //p' <<<"$said")
		line=$(sed -n 's/.*or with \(GLIBC_TUNABLES=[^ ]*\)$/\1/p' <<<"$said")
		grep -q "telefork run --baseline $2 -- PROGRAM" <<<"$said" || fail "not advised $2: $said"
		# Whatever /proc/cpuinfo calls by the same name and no model below Haswell has.
		for name in avx avx2 f16c fma movbe bmi1 bmi2 aes pclmulqdq rdrand rdseed adx xsave xsavec \
			avx512f avx512bw avx512cd avx512dq avx512vl; do
			if [ "$1" != Nehalem ] || [ "${#here[@]}" != 0 ] || ! grep -qw "$name" /proc/cpuinfo; then
				continue
			fi
			grep -qw "${name^^}" <<<"$missing" || fail "$name is missing there and not named: $said"
		done
		# Every name is needed: without one of them that one is what is missing.
		name=${missing##* }
		if [ "$name" != XSAVEC ] && go hop-static env "${line/,-$name/}"; then fail "needless: $name: $said"; fi
		if [ -z "$line" ] || ! go hop-static env "$line"; then fail "the remedy $line does not help: $said"; fi
		echo "$1: refused without $missing; with the remedy: $said"
	fi
	for probe in hop-static hop-dyn hop-pie; do
		go "$probe" $telefork run --baseline "$2" -- || fail "$probe: baseline $2 on $1: $said"
		echo "$1: $probe with baseline $2: $said"
	done
}

follows max x86-64-v3
follows Nehalem x86-64-v2
follows qemu64 x86-64
# What no baseline of this processor has is not believed either: v3 cannot go to a Nehalem.
serve Nehalem
if go hop-static $telefork run --baseline x86-64-v3 --; then fail "v3 went to a Nehalem: $said"; fi
grep -q 'the processor lacks .*AVX2' <<<"$said" || fail "AVX2 is not named: $said"
