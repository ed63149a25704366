#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# attrs.sh BUILD VARIANT WORD...: the attrs probe is dumped from outside and goes on; a process made from
# the image, by a receiver that has everything otherwise (limits, nice, processors, umask, session), is what
# the probe was. Words are the probe's (rights, filters, clocks), and: same (the ids that it had), namespace
# (its clocks are not the machine's), again (the copy is dumped once more, and is what the image says), user
# (a receiver that is nobody: refuses, or goes without what it may not grant and tells so)
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
again=("$0" "$@") seconds=${SLEEP_S:-3}
build=$(cd "$1" && pwd) probe=$(cd "$1" && pwd)/probes/attrs-$2
shift 2
words=" $* "
has() { case $words in *" $1 "*) ;; *) return 1 ;; esac }

# restored PID: what it has made, in $copy.
restored() {
	copy=$(word_of 'telefork: pid' "$tmp/restore" "$1")
	copy=${copy%% *}
	pids+=("$copy")
}

# asleep PID: its threads that sleep until a time have still to wake; or all starts anew with twice the time.
asleep() {
	local threads
	if ! has clocks; then return; fi
	threads=("/proc/$1/task/"*)
	if [ ${#threads[@]} = 7 ]; then return; fi
	((seconds > 0 && seconds < 40)) || fail "${#threads[@]} threads after $seconds s"
	SLEEP_S=$((2 * seconds)) bash "${again[@]}"
	exit
}

close_descriptors
apart='' ids=new
if has same; then ids=same; fi
: >"$tmp/original"
# What is not forked is in the namespace on some kernels only.
if has namespace; then apart='unshare --fork --time --monotonic 1000000 --boottime 2000000'; fi
$apart "$probe" "sleep=$seconds" "$@" >"$tmp/original" </dev/null &
original=$!
pid=$(word_of ready "$tmp/original" "$original")
pids+=("$pid")
"$build/bin/telefork" dump "$pid" -o "$tmp/image" >"$tmp/dump"
asleep "$pid"
if has same; then
	kill -9 "$pid"
	wait "$original" 2>/dev/null || true
else
	kill -USR1 "$pid"
	wait "$original" || fail "original: $(cat "$tmp/original")"
fi
if has user; then
	setpriv --reuid 65534 --regid 65534 --clear-groups true 2>/dev/null || {
		echo "skip: only root can be another user"
		exit 0
	}
	cp "$build/bin/telefork" "$tmp/telefork"
	chmod 755 "$tmp" "$tmp/telefork"
	chmod 644 "$tmp/image"
	nobody() { (cd / && setpriv --reuid 65534 --regid 65534 --clear-groups "$tmp/telefork" restore "$@" "$tmp/image") }
	nobody 2>"$tmp/refused" && fail "root's process for nobody" || [ $? = 65 ] || [ -s "$tmp/refused" ]
	grep -q 'credentials: the process is uid 0, gid 0 .* this receiver is uid 65534' "$tmp/refused" ||
		fail "$(cat "$tmp/refused")"
	nobody --allow credentials >"$tmp/copy" 2>"$tmp/restore" </dev/null &
	restorer=$!
	restored "$restorer"
	grep -q '^Uid:	65534	65534	65534	65534$' "/proc/$copy/status" || fail "uid"
	grep -q '^CapEff:	0000000000000000$' "/proc/$copy/status" || fail "it has capabilities"
	grep -q 'credentials: uid 0 and gid 0 become the receiver' "$tmp/restore" || fail "$(cat "$tmp/restore")"
	kill -USR1 "$copy"
	wait "$restorer" || true
	# Nothing else is another than it was.
	! grep '^wrong' "$tmp/copy" | grep -Ev ' (Uid|Gid|Groups|Cap...|/proc/self/exe):' || fail "$(cat "$tmp/restore")"
	grep '^wrong' "$tmp/copy" | grep -q 'CapEff' || fail "not looked at: $(cat "$tmp/copy")"
	exit 0
fi
(
	umask 0
	ulimit -Sc 0 -Sn 100 -Sf 12345 -Ss 9000 -St 1234
	cd "$tmp"
	echo 123 >/proc/self/oom_score_adj
	renice -n 1 -p "$BASHPID" >/dev/null
	exec taskset 1 "$build/bin/telefork" restore --pid "$ids" "$tmp/image" \
		>"$tmp/copy" 2>"$tmp/restore" </dev/null
) &
restorer=$!
restored "$restorer"
! has same || [ "$copy" = "$pid" ] || fail "pid $copy, not $pid"
if has again; then
	"$build/bin/telefork" dump "$copy" -o "$tmp/image2" >>"$tmp/dump"
	asleep "$copy"
	"$build/bin/telefork" diff "$tmp/image" "$tmp/image2" >"$tmp/diff" || true
	! grep -E '^(process|attributes|rights|group|filter|code|timer)' "$tmp/diff" || fail "another image"
	grep -q '^state .* equal' "$tmp/diff" || fail "diff: $(cat "$tmp/diff")"
fi
kill -USR1 "$copy"
wait "$restorer" || fail "copy: $(cat "$tmp/copy" "$tmp/restore")"
grep '^right ' "$tmp/copy" || fail "copy: $(cat "$tmp/copy")"
