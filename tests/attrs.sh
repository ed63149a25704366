#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# attrs.sh BUILD VARIANT WORD...: the attrs probe is dumped from outside and goes on; a process made from
# the image, by a receiver that has everything otherwise (limits, nice, processors, umask, session), is what
# the probe was. Words are the probe's (rights, filters, clocks), and: same (the ids that it had), namespace
# (its clocks are not the machine's), again (the copy is dumped once more, and is what the image says), user
# (a receiver that is nobody: refuses, or goes without what it may not grant and tells so)
set -eu
# shellcheck source=tests/bare.sh
. "$(dirname "$0")/bare.sh"
build=$(cd "$1" && pwd) probe=$(cd "$1" && pwd)/probes/attrs-$2
shift 2
dir=$(mktemp -d)
original='' source='' copy='' restorer=''
finish() {
	for p in $source $original $copy $restorer; do kill -9 "$p" 2>/dev/null || true; done
	rm -rf "$dir"
}
trap finish EXIT
fail() {
	echo "FAILED: $*" >&2
	exit 1
}
words=" $* "
has() { case $words in *" $1 "*) ;; *) return 1 ;; esac }

# Waits until FILE has a line that begins with WORD, as long as PID runs; prints its second word.
second_word() { # FILE WORD PID
	while ! grep -q "^$2 " "$1"; do
		kill -0 "$3" 2>/dev/null || fail "$(cat "$1")"
		sleep 0.02
	done
	sed -n "s/^$2 //p" "$1"
}

close_descriptors
apart='' ids=new
if has same; then ids=same; fi
: >"$dir/original"
# What is not forked is in the namespace on some kernels only.
if has namespace; then apart='unshare --fork --time --monotonic 1000000 --boottime 2000000'; fi
$apart "$probe" "$@" >"$dir/original" </dev/null &
original=$!
pid=$(second_word "$dir/original" ready "$original")
source=$pid
"$build/bin/telefork" dump "$pid" -o "$dir/image" >"$dir/dump"
if has same; then
	kill -9 "$pid"
	wait "$original" 2>/dev/null || true
else
	kill -USR1 "$pid"
	wait "$original" || fail "original: $(cat "$dir/original")"
fi
original='' source=''
if has user; then
	setpriv --reuid 65534 --regid 65534 --clear-groups true 2>/dev/null || {
		echo "skip: only root can be another user"
		exit 0
	}
	cp "$build/bin/telefork" "$dir/telefork"
	chmod 755 "$dir" "$dir/telefork"
	chmod 644 "$dir/image"
	nobody() { (cd / && setpriv --reuid 65534 --regid 65534 --clear-groups "$dir/telefork" restore "$@" "$dir/image") }
	nobody 2>"$dir/refused" && fail "root's process for nobody" || [ $? = 65 ] || [ -s "$dir/refused" ]
	grep -q 'credentials: the process is uid 0, gid 0 .* this receiver is uid 65534' "$dir/refused" ||
		fail "$(cat "$dir/refused")"
	nobody --allow credentials >"$dir/copy" 2>"$dir/restore" </dev/null &
	restorer=$!
	until grep -q '^telefork: pid ' "$dir/restore"; do
		kill -0 "$restorer" 2>/dev/null || fail "not restored: $(cat "$dir/restore")"
		sleep 0.02
	done
	copy=$(sed -n 's/^telefork: pid \([0-9]*\).*/\1/p' "$dir/restore")
	grep -q '^Uid:	65534	65534	65534	65534$' "/proc/$copy/status" || fail "uid"
	grep -q '^CapEff:	0000000000000000$' "/proc/$copy/status" || fail "it has capabilities"
	grep -q 'credentials: uid 0 and gid 0 become the receiver' "$dir/restore" || fail "$(cat "$dir/restore")"
	kill -USR1 "$copy"
	wait "$restorer" || true
	restorer='' copy=''
	# Nothing else is another than it was.
	! grep '^wrong' "$dir/copy" | grep -Ev ' (Uid|Gid|Groups|Cap...|/proc/self/exe):' || fail "$(cat "$dir/restore")"
	grep '^wrong' "$dir/copy" | grep -q 'CapEff' || fail "not looked at: $(cat "$dir/copy")"
	exit 0
fi
(
	umask 0
	ulimit -Sc 0 -Sn 100 -Sf 12345 -Ss 9000 -St 1234
	cd "$dir"
	echo 123 >/proc/self/oom_score_adj
	renice -n 1 -p "$BASHPID" >/dev/null
	exec taskset 1 "$build/bin/telefork" restore --pid "$ids" "$dir/image" \
		>"$dir/copy" 2>"$dir/restore" </dev/null
) &
restorer=$!
until grep -q '^telefork: pid ' "$dir/restore" 2>/dev/null; do
	kill -0 "$restorer" 2>/dev/null || fail "not restored: $(cat "$dir/restore")"
	sleep 0.02
done
copy=$(sed -n 's/^telefork: pid \([0-9]*\).*/\1/p' "$dir/restore")
! has same || [ "$copy" = "$pid" ] || fail "pid $copy, not $pid"
if has again; then
	"$build/bin/telefork" dump "$copy" -o "$dir/image2" >>"$dir/dump"
	"$build/bin/telefork" diff "$dir/image" "$dir/image2" >"$dir/diff" || true
	! grep -E '^(process|attributes|rights|group|filter|code|timer)' "$dir/diff" || fail "another image"
	grep -q '^state .* equal' "$dir/diff" || fail "diff: $(cat "$dir/diff")"
fi
kill -USR1 "$copy"
wait "$restorer" || fail "copy: $(cat "$dir/copy" "$dir/restore")"
restorer='' copy=''
grep '^right ' "$dir/copy" || fail "copy: $(cat "$dir/copy")"
