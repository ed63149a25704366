#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# scaling.sh BUILD HOST-BUILD RUNNER MIB MB/S DELAY N...: telefork_many() to N receivers in a chain, each run by
# RUNNER (qemu-ARCH), over lines that carry so many MB/s each, DELAY milliseconds late. How long it takes beside
# what the model of docs/scaling.md says, whose two terms are of one and of the most receivers.
set -eu
build=$1 host=$2 run=$3 mib=$4 rate=$5 delay=$6
shift 6
tmp=$(mktemp -d)
pids=
# shellcheck disable=SC2086 # a list
trap 'kill $pids 2>/dev/null || true; rm -rf "$tmp"' EXIT
echo secret >"$tmp/token"
fail() { echo "scaling: $*" >&2; exit 1; }

# begin COMMAND...: in the background; the first line that it says, in $said
begin() {
	rm -f "$tmp/said"
	mkfifo "$tmp/said"
	"$@" >"$tmp/said" 2>>"$tmp/log" &
	disown
	pids="$pids $!"
	exec {fd}<"$tmp/said"
	read -r said <&"$fd" || fail "$1 ends: $(tail -n 1 "$tmp/log")"
}

most=$(printf '%s\n' 2 "$@" | sort -n | tail -n 1)
declare -a line
for i in $(seq "$most"); do
	begin env QEMU_STACK_SIZE=1073741824 "$run" "$build/bin/telefork-pad" serve --token-file "$tmp/token" tcp://127.0.0.1:0
	begin "$host/tests/tools/slow" "${said##*:}" "$((rate * 1000000))" "$((delay * 1000))"
	line[i]=tcp://127.0.0.1:$said
done

# go N: milliseconds until all of them have said that their copy runs, in $ms: the least of three
go() {
	: >"$tmp/times"
	for _ in 1 2 3; do
		rm -rf "$tmp/at"
		mkdir "$tmp/at"
		"$run" "$build/probes/flock-static" secret "$tmp/at" "$mib" "${line[@]:1:$1}" >"$tmp/out"
		[ "$(grep -c " TELEFORK_E_? [1-9]" "$tmp/out")" = "$1" ] || fail "$(cat "$tmp/out")"
		head -n 1 "$tmp/out" | cut -d ' ' -f 4 >>"$tmp/times"
	done
	ms=$(($(sort -n "$tmp/times" | head -n 1) / 1000))
}

declare -A took
for n in 1 "$@"; do
	go "$n"
	took[$n]=$ms
done
first=${took[1]} each=$(((took[$most] - took[1]) / (most - 1)))
echo "$mib MiB, $rate MB/s, $delay ms: one receiver $first ms, another one $each ms"
echo "receivers   measured      model  measured/model  one after the other"
for n; do
	model=$((first + each * (n - 1)))
	printf '%9d %7d ms %7d ms %11d.%02d %17d ms\n' "$n" "${took[$n]}" "$model" $((took[$n] / model)) \
		$((took[$n] * 100 / model % 100)) $((first * n))
done
