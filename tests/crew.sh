#!/bin/sh
# SPDX-License-Identifier: MIT
# A program with threads is dumped from outside and goes on; a process made from the image goes on as
# well, in every thread, with nothing of the restorer left in its memory; dumped again, it is what it was.
#   crew.sh BUILD PROBE THREADS [RUN...]
# RUN: what restores (an emulator), instead of the machine itself; the program is then held to a baseline
set -eu
build=$1 probe=$1/probes/$2 threads=$3
shift 3
dir=$(mktemp -d)
original='' copy=''
finish() {
	for p in $original $copy; do kill -9 "$p" 2>/dev/null || true; done
	rm -rf "$dir"
}
trap finish EXIT
fail() {
	echo "$*" >&2
	exit 1
}

# One that has ended and has not been waited for does not: kill -0 takes it for alive.
runs() { grep -q '^State:	[^ZX]' "/proc/$1/status" 2>/dev/null; }

# Waits until FILE has a line that begins with WORD, as long as PID runs; prints its second word.
second_word() { # FILE WORD PID
	while ! grep -q "^$2 " "$1"; do
		runs "$3" || grep -q "^$2 " "$1" || fail "process $3 ended, did not say $2: $(cat "$1")"
		sleep 0.05
	done
	sed -n "s/^$2 //p" "$1"
}

start=''
if [ $# != 0 ]; then start="$build/bin/telefork run --baseline x86-64-v3 --"; fi
$start "$probe" "$threads" >"$dir/original" &
original=$!
pid=$(second_word "$dir/original" ready "$original")
$start "$build/bin/telefork" dump "$pid" -o "$dir/image" >"$dir/dump"
"$@" "$build/bin/telefork-pad" restore --detach "$dir/image" >"$dir/copy" || fail "not restored"
copy=$(tail -n 1 "$dir/copy")
kill -USR1 "$original"
wait "$original" || fail "original: $(cat "$dir/original")"
original=''
[ "$(cat "$dir/original")" = "ready $pid
right $threads" ] || fail "original: $(cat "$dir/original")"
if [ $# = 0 ]; then
	[ "$(find "/proc/$copy/task" -mindepth 1 -maxdepth 1 | wc -l)" = "$threads" ] || fail "threads are missing"
	"$build/bin/telefork" dump "$copy" -o "$dir/again" >>"$dir/dump"
	# Numbers 4, 8 and 12 never stand still.
	[ "$threads" -gt 4 ] || "$build/bin/telefork" diff "$dir/image" "$dir/again" >"$dir/diff" ||
		fail "$(cat "$dir/diff")"
fi
kill -USR1 "$copy"
[ "$(second_word "$dir/copy" right "$copy")" = "$threads" ] || fail "copy: $(cat "$dir/copy")"
copy=''
echo "right $threads"
