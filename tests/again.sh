#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# again.sh BUILD CASE: what need not be sent, or not as it is (tests/programs/again.c). Cases: second (a program that
# comes again, with one page in a hundred changed, is 3 percent of its bytes), small (a store that holds a part of it
# only), slow (a slow line: compressed, and asked what is there), old (a receiver that keeps no pages), qemu (one
# under QEMU user mode).
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$(cd "$1" && pwd) case=$2
n=0 right=0 runner=() receiver=("$build/bin/telefork")

counts() { [ "$(grep -c "$1" "$2")" -ge "$3" ]; }

start() { begin_ready here "${runner[@]}" "$build/programs/again" "$@"; }
serve() { receiver serve "${receiver[@]}" serve --insecure "$@"; }

change() {
	n=$((n + 1))
	kill -USR1 "$pid"
	within "it does not change" counts changed "$tmp/here.out" "$n"
}

copy() {
	telefork copy "$@" "$pid" "$address" >"$tmp/send.out" 2>"$tmp/send.err" || fail "copy $*: $?"
	right=$((right + 1))
	within "over there" counts '^right' "$tmp/serve.err" "$right"
}

case $case in
second)
	serve --store 128 tcp://127.0.0.1:0
	start 48
	copy --store=always
	change
	copy --store=always
	[ "$(bytes sent)" -lt $(($(bytes 'of memory') * 3 / 100)) ] || fail "sent: $(cat "$tmp/send.out")"
	change
	telefork move --store=always "$pid" "$address" >"$tmp/send.out" || fail "move: $?"
	[ "$(bytes sent)" -lt $(($(bytes 'of memory') * 3 / 100)) ] || fail "moved: $(cat "$tmp/send.out")"
	within "over there" counts '^right' "$tmp/serve.err" $((right + 1))
	;;
small)
	serve --store 8 "unix:$tmp/socket"
	start 24
	copy --store=always
	copy --store=always --compress=lz4
	grep -q 'were there' "$tmp/send.out" || fail "nothing was there: $(cat "$tmp/send.out")"
	;;
slow)
	# What stands between takes some MiB at once; what the line can carry is found out on the way, later where the
	# machine is busy.
	for mib in 32 64 128 256; do
		rm -f "$tmp"/*.out "$tmp"/*.err
		right=0
		serve --store $((2 * mib)) tcp://127.0.0.1:0
		start $mib soft
		slow 16000000
		copy --store=never
		cat "$tmp/send.out"
		[ "$(bytes sent)" -lt $(($(bytes 'of memory') * 95 / 100)) ] || continue
		copy
		copy
		cat "$tmp/send.out"
		[ "$(bytes sent)" -ge $(($(bytes 'of memory') * 9 / 10)) ] || exit 0
	done
	fail "as much was sent"
	;;
qemu)
	[ "$(uname -m)" != x86_64 ] || runner=("$build/bin/telefork" run --baseline x86-64-v2 --)
	receiver=(env QEMU_STACK_SIZE=268435456 "qemu-$(uname -m)" "$build/bin/telefork-pad")
	serve --store 32 "unix:$tmp/socket"
	start 8
	copy --store=always
	copy --store=always --compress=zstd
	[ "$(bytes sent)" -lt $(($(bytes 'of memory') * 3 / 100)) ] || fail "sent: $(cat "$tmp/send.out")"
	;;
old)
	serve tcp://127.0.0.1:0
	start 8
	telefork copy --store=always "$pid" "$address" 2>"$tmp/send.err" && fail "it keeps pages?"
	grep -q 'the receiver keeps no pages' "$tmp/send.err" || fail "what copy says"
	copy
	;;
*)
	echo "no such case: $case" >&2
	exit 2
	;;
esac
