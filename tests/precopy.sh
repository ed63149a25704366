#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# precopy.sh BUILD CASE [VARIANT [MIB [MB_S]]]: pre-copy (move --precopy) of a running program that never leaves its
# memory alone (tests/probes/precopy.c). Cases:
#   tcp, unix
#   rounds, none    there have to be some; nothing tells what it writes to: that is said, and all goes at once
#   stage, old, room  all goes at once, too, and that is said: a receiver that may not trace; one that does not know of
#                   rounds; one that finds out in the first that it has no addresses to keep it at
#   slow, packed    rounds are compressed: over a slow line by themselves; because that is wished for, and only what
#                   is not there goes
#   sender, receiver, child, broken  one of them is killed, or the line breaks, while rounds are on their way: the
#                   program runs on here, nobody watches it any more, and nothing is left there
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$(cd "$1" && pwd) case=$2 probe=$(cd "$1" && pwd)/probes/precopy-${3-pie}
as=() how=() mib=${4-64} rate=${5-20} spans=0

# It forks, and its child may be there, or have ended and be waited for.
move() { exec "$build/bin/telefork" move --precopy --allow child --allow zombie "${how[@]}" "$pid" "$1"; }
start() { begin_ready here "$probe" "$mib" "$rate" "$spans"; }
serve() { receiver serve "${as[@]}" "$build/bin/telefork" serve --insecure "$@"; }

arrived() {
	within "over there" grep -Eq '^(right|wrong)' "$tmp/serve.err"
	grep -q '^right' "$tmp/serve.err" || fail "not right over there"
}
# How much there was to send, which grows with the time that it takes.
in_rounds() { sed -n 's/.* rounds (\([^)]*\)).*/\1/p' "$tmp/send.out" | sum; }
child_of() { pgrep -P "$1" 2>/dev/null; }
has_child() { [ -n "$(child_of "$1")" ]; }
watched() { grep -Eq '^VmFlags:.* u[wm]( |$)' "/proc/$1/smaps"; }
not_watched() { ! watched "$1"; }

# Rounds that stop coming after some MiB.
begin_to_move() {
	serve tcp://127.0.0.1:0
	start
	descriptors >"$tmp/fds"
	open_gate 20000000
	how=(--compress=none) # or they are no such MiB where the machine is busy
	move "$door" >"$tmp/send.out" 2>"$tmp/send.err" &
	sender=$!
	within "rounds are not held back" grep -q held "$tmp/gate.out"
	session=$(child_of "$server")
	within "there is nobody to take them" has_child "$session"
	copy=$(child_of "$session")
	watched "$pid" || fail "nobody watches what it writes to"
	within "the receiver has no record" recorded prepared
}

descriptors() { find "/proc/$pid/fd" -mindepth 1 | sort; }
recorded() { compgen -G "$tmp/state/telefork/arrivals/*.$1" >"$tmp/records"; }

# Whatever happened.
end_of_move() {
	within "the new process does not end" is_gone "$copy"
	within "its session does not end" is_gone "$session"
	within "the receiver does not know that it is gone" recorded gone
	if recorded prepared; then fail "two records"; fi
	within "it is watched" not_watched "$pid"
	descriptors | cmp -s - "$tmp/fds" || fail "a descriptor is left in it"
	kill -USR1 "$pid"
	wait "$pid" || fail "the original: exit code $?"
	grep -q '^right' "$tmp/here.out" || fail "the original: not right"
}

case $case in
tcp | unix | rounds | none)
	if [ "$case" = unix ]; then serve "unix:$tmp/socket"; else serve tcp://127.0.0.1:0; fi
	start
	(move "$address") >"$tmp/send.out" 2>"$tmp/send.err" || fail "move: $?"
	wait "$pid" && fail "the original ended by itself" || [ $? = 137 ] || fail "the original lives"
	arrived
	has=$(grep -c ' rounds (' "$tmp/send.out" || true)
	says=$(grep -c 'no pre-copy here: .*PAGEMAP_SCAN.*; no soft-dirty bits' "$tmp/send.err" || true)
	case $case in
	none) [ "$says$has" = 10 ] || fail "rounds, or no word" ;;
	rounds) [ "$says$has" = 01 ] || fail "no rounds" ;;
	*) [ "$has" = 1 ] || grep -q 'no pre-copy here' "$tmp/send.err" || fail "no rounds" ;;
	esac
	first=$(sed -n 's/.* rounds (\([0-9]*\)\.[0-9] MiB.*/\1/p' "$tmp/send.out")
	[ "$has" = 0 ] || [ "$first" -ge "$mib" ] || fail "the first round has not all"
	cat "$tmp/send.out"
	grep '^right' "$tmp/serve.err"
	;;
stage)
	ulimit -v 100000000
	serve "unix:$tmp/socket"
	start
	(move "$address") >"$tmp/send.out" 2>"$tmp/send.err" || fail "move: $?"
	grep -q 'the receiver: its address space is limited' "$tmp/send.err" || fail "it does not say so"
	arrived
	;;
old)
	serve tcp://127.0.0.1:0
	start
	"$build/tests/tools/gate" "${address##*:}" old >"$tmp/gate.out" &
	pids+=("$!")
	within "the gate" test -s "$tmp/gate.out"
	(move "tcp://127.0.0.1:$(head -n 1 "$tmp/gate.out")") >"$tmp/send.out" 2>"$tmp/send.err" || fail "move: $?"
	arrived
	grep -q 'no pre-copy here: the receiver: there is no errand' "$tmp/send.err" || fail "it does not say so"
	grep -q 'no pre-copy, total' "$tmp/send.out" || fail "nor at the end: $(cat "$tmp/send.out")"
	;;
room)
	spans=100
	serve tcp://127.0.0.1:0
	start
	(move "$address") >"$tmp/send.out" 2>"$tmp/send.err" || fail "move: $?"
	arrived
	grep -q 'no pre-copy here: the receiver: no addresses are free' "$tmp/send.err" || fail "it does not say so"
	grep -q 'no pre-copy, total' "$tmp/send.out" || fail "nor at the end: $(cat "$tmp/send.out")"
	[ "$(bytes sent)" -lt $(($(bytes 'of memory') * 3 / 2)) ] || fail "it went twice: $(cat "$tmp/send.out")"
	"$build/bin/telefork" jobs --json >"$tmp/jobs.out"
	grep -q '"no_rounds": "the receiver: no addresses are free' "$tmp/jobs.out" || fail "nor do jobs"
	! grep -Eq '"phase": "(gone|prepared|here)"' "$tmp/jobs.out" || fail "what jobs say"
	copy=$(sed -n 's/^telefork: pid \([0-9]*\) (was .*/\1/p' "$tmp/serve.err")
	grep -q "\"pid\": $copy," "$tmp/jobs.out" || fail "jobs do not know process $copy: $(cat "$tmp/jobs.out")"
	;;
slow)
	mib=32 rate=5
	serve tcp://127.0.0.1:0
	start
	slow 16000000
	(move "$address") >"$tmp/send.out" 2>"$tmp/send.err" || fail "move: $?"
	arrived
	grep -Eq ' rounds \(.* by (lz4|zstd): ' "$tmp/send.out" || fail "no rounds, or as they are: $(cat "$tmp/send.out")"
	[ "$(bytes sent)" -lt $(($(in_rounds) * 2 / 3)) ] || fail "sent: $(cat "$tmp/send.out")"
	cat "$tmp/send.out"
	;;
packed)
	mib=16 how=(--compress=zstd --store=always)
	serve --store 128 "unix:$tmp/socket"
	start
	(move "$address") >"$tmp/send.out" 2>"$tmp/send.err" || fail "move: $?"
	arrived
	grep -q ' rounds (' "$tmp/send.out" || fail "no rounds: $(cat "$tmp/send.err")"
	grep -q ' by zstd: ' "$tmp/send.out" || fail "not compressed: $(cat "$tmp/send.out")"
	[ "$(bytes sent)" -lt $(($(in_rounds) / 4)) ] || fail "sent: $(cat "$tmp/send.out")"
	cat "$tmp/send.out"
	;;
broken)
	begin_to_move
	pkill -P "$gate"
	wait "$sender" && fail "moved" || [ $? = 74 ] || fail "move: $?"
	end_of_move
	;;
sender)
	begin_to_move
	kill -KILL "$sender"
	wait "$sender" 2>/dev/null || true # or it holds the original still
	pkill -P "$gate" # and so ends its connection, of which the gate takes nothing more
	end_of_move
	;;
receiver)
	begin_to_move
	kill -KILL "$session"
	wait "$sender" && fail "moved" || [ $? = 74 ] || fail "move: $?"
	end_of_move
	;;
child)
	begin_to_move
	kill -KILL "$copy"
	wait "$sender" && fail "moved"
	end_of_move
	;;
*)
	echo "no such case: $case" >&2
	exit 2
	;;
esac
