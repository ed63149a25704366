#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A program with threads is dumped from outside and goes on; a process made from the image goes on as
# well, in every thread, with nothing of the restorer left in its memory; dumped again, it is what it was.
#   crew.sh BUILD PROBE THREADS [RUN...]
# RUN: what restores (an emulator), instead of the machine itself; the program is then held to a baseline
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$1 probe=$1/probes/$2 threads=$3
shift 3
# stands PID: where no thread of it works: numbers 4, 8 and 12 do. They are set up a moment before they wait.
all_sleep() { ! grep -q '^State:.[^S]' "/proc/$1/task/"*/status; }
stands() { [ "$threads" -gt 4 ] || within "it does not stand still" all_sleep "$1"; }
start=()
if [ $# != 0 ]; then start=("$build/bin/telefork" run --baseline x86-64-v3 --); fi
"${start[@]}" "$probe" "$threads" >"$tmp/original" &
original=$!
pid=$(word_of ready "$tmp/original" "$original")
stands "$pid"
"${start[@]}" "$build/bin/telefork" dump "$pid" -o "$tmp/image" >"$tmp/dump"
"$@" "$build/bin/telefork-pad" restore --detach "$tmp/image" >"$tmp/copy" || fail "not restored"
copy=$(tail -n 1 "$tmp/copy")
pids+=("$copy")
kill -USR1 "$original"
wait "$original" || fail "original: $(cat "$tmp/original")"
[ "$(cat "$tmp/original")" = "ready $pid
right $threads" ] || fail "original: $(cat "$tmp/original")"
if [ $# = 0 ]; then
	[ "$(find "/proc/$copy/task" -mindepth 1 -maxdepth 1 | wc -l)" = "$threads" ] || fail "threads are missing"
	stands "$copy"
	"$build/bin/telefork" dump "$copy" -o "$tmp/again" >>"$tmp/dump"
	[ "$threads" -gt 4 ] || "$build/bin/telefork" diff "$tmp/image" "$tmp/again" >"$tmp/diff" ||
		fail "$(cat "$tmp/diff")"
fi
kill -USR1 "$copy"
[ "$(word_of right "$tmp/copy" "$copy")" = "$threads" ] || fail "copy: $(cat "$tmp/copy")"
echo "right $threads"
