#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# moves.sh BUILD COUNT [OPTION...]: a program with threads that checks itself (tests/probes/busy.c) is moved COUNT
# times, with these options, back and forth between two receivers. It has to arrive each time and to come to its
# end rightly after the last; and nothing of it may grow from move to move: mappings, descriptors, threads, memory,
# image. Nor may anything be left of it at the receivers. Prints what it was at the first, the tenth and the last.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$(cd "$1" && pwd) count=$2
shift 2
addresses=() servers=()

entries() { find "$1" -mindepth 1 -maxdepth 1 | wc -l; }

# What it is: mappings, KiB mapped (but for the stack, which is mapped whole over there), descriptors, threads.
shape() {
	local range rest n=0 size=0
	while read -r range rest; do
		case $rest in *'[stack]') continue ;; esac
		n=$((n + 1)) size=$((size + (0x${range#*-} - 0x${range%-*}) / 1024))
	done <"/proc/$pid/maps"
	echo "$n mappings, $size KiB, $(entries "/proc/$pid/fd") descriptors, $(entries "/proc/$pid/task") threads"
}

# grown NAME NOW BEFORE: by more than an eighth.
grown() { [ $(($2 * 8)) -le $(($3 * 9)) ] || fail "move $i: $1: $2, $3 at the first"; }

for n in $(seq 0 255); do printf '%b' "\\0$(printf %o "$n")"; done >"$tmp/bytes"
for k in 0 1; do
	receiver "serve$k" "$build/bin/telefork" serve --insecure tcp://127.0.0.1:0
	addresses+=("$address") servers+=("$server")
done
served=$(($(entries "/proc/${servers[0]}/fd") + $(entries "/proc/${servers[1]}/fd")))
begin_ready busy "$build/probes/busy-pie" "$tmp/bytes"
disown # or its end by a signal is told
pids=("$pid")

for i in $(seq "$count"); do
	telefork move "$@" "$pid" "${addresses[i % 2]}" >"$tmp/move.out" 2>"$tmp/move.err" || fail "move $i: exit code $?"
	pid=$(sed -n 's/.* moved: pid \([0-9]*\): .*/\1/p' "$tmp/move.out")
	pids=("$pid")
	now=$(shape)
	resident=$(sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$pid/status")
	sent=$(sed -n 's/.*, \([0-9]*\)\.\([0-9]\) MiB sent.*/\1\2/p' "$tmp/move.out")
	if [ "$i" = 1 ]; then shape=$now first=("$resident" "$sent"); fi
	case $i in
	1 | 10 | "$count") echo "move $i: $now, $resident KiB resident, $((sent / 10)).$((sent % 10)) MiB sent" ;;
	esac
	# Neighbours become one where what they have come to is alike; that differs with --lazy.
	[ "${now#* }" = "${shape#* }" ] || fail "move $i: it is $now; it was $shape"
	grown mappings "${now%% *}" "${shape%% *}"
	grown "KiB resident" "$resident" "${first[0]}"
	# How many rounds there are is the program's doing.
	[[ " $* " == *" --precopy "* ]] || grown "tenths of a MiB sent" "$sent" "${first[1]}"
done
kill -USR1 "$pid"
until grep -q '^right' "$tmp"/serve*.err; do
	kill -0 "$pid" 2>/dev/null || grep -q '^right' "$tmp"/serve*.err || fail "it ended"
	! grep -q '^wrong' "$tmp"/serve*.err || fail "it is not right"
	sleep 0.01
done
pids=()
# Sessions end with their processes; the receivers wait for others.
until [ -z "$(cat "/proc/${servers[0]}/task/${servers[0]}/children" "/proc/${servers[1]}/task/${servers[1]}/children")" ]; do
	kill -0 "${servers[@]}" || fail "a receiver ended"
	sleep 0.01
done
[ "$(($(entries "/proc/${servers[0]}/fd") + $(entries "/proc/${servers[1]}/fd")))" = "$served" ] ||
	fail "a receiver has other descriptors than before"
grep -h '^right' "$tmp"/serve*.err
