#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# outside.sh BUILD CASE [VARIANT]: a running program that knows nothing of telefork, captured from outside
# (tests/probes/outside.c, which checks itself). Cases: restore (dump --kill, then restore), copy (both
# finish), unix and tcp (move), many (one image, 100 processes at once), killed (telefork is killed at
# random moments of a dump, the program goes on), broken (nobody listens, or the receiver refuses),
# stopped (a stopped process stays so, here and over there), obstacles (each is told, and what may be allowed is), asked (check
# --to: a receiver says why it would refuse, nothing arrives there, and the process goes on and can move), progress
# (a bar on a terminal and nowhere else, and with --quiet nothing), refused (no fork of it can be made: it stands
# still, which is said, and goes on).
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$(cd "$1" && pwd) case=$2 probe=$(cd "$1" && pwd)/probes/outside-${3-pie}
as=()

# start NAME: the program, which goes on until it may end.
start() {
	rm -f "$tmp/end"
	begin_ready "$1" "${as[@]}" "$probe" "$tmp/end"
}
may_end() { : >"$tmp/end"; }

# finish NAME PID: it was right.
finish() {
	may_end
	wait "$2" || fail "$1: exit code $?"
	grep -q '^right' "$tmp/$1.out" || fail "$1: not right"
}

serve() { receiver serve "$build/bin/telefork" serve --insecure "$1"; }

# arrived N: what the receiver got has come to its end, rightly, N times.
arrived() {
	may_end
	until [ "$(grep -c '^right' "$tmp/serve.err")" = "$1" ]; do
		! is_gone "$server" || fail "the receiver ended"
		! grep -q 'wrong\|ended by' "$tmp/serve.err" || fail "over there"
		sleep 0.05
	done
}

move() {
	serve "$1"
	start here
	telefork move "$pid" "$address" >"$tmp/move.out" 2>"$tmp/move.err" || fail "move: $?"
	grep -Eq "^$pid moved: pid [0-9]+: frozen [0-9.]+ ms" "$tmp/move.out" || fail "what move says"
	wait "$pid" && fail "the original ended by itself" || [ $? = 137 ] || fail "the original lives"
	arrived 1
}

case $case in
restore)
	start here
	telefork dump "$pid" -o "$tmp/image" --kill >"$tmp/dump.out"
	if wait "$pid"; then fail "it should be dead"; fi
	may_end
	telefork restore "$tmp/image" >"$tmp/there.out" || fail "restored: exit code $?"
	grep -q '^right' "$tmp/there.out" || fail "restored: not right"
	;;
copy)
	serve "unix:$tmp/socket"
	start here
	telefork copy "$pid" "$address" >"$tmp/copy.out"
	finish here "$pid"
	arrived 1
	;;
unix) move "unix:$tmp/socket" ;;
tcp) move tcp://127.0.0.1:0 ;;
many)
	start here
	telefork dump "$pid" -o "$tmp/image" >"$tmp/dump.out"
	finish here "$pid"
	many=()
	for i in $(seq 100); do
		telefork restore "$tmp/image" >"$tmp/many$i.out" 2>&1 &
		many+=($!)
	done
	for i in $(seq 100); do
		wait "${many[i - 1]}" || fail "number $i: exit code $?"
		grep -q '^right' "$tmp/many$i.out" || fail "number $i: not right"
	done
	;;
killed)
	seed=${SEED-$RANDOM}
	echo "SEED=$seed"
	RANDOM=$seed
	start here
	for i in $(seq 40); do
		telefork dump "$pid" -o "$tmp/image" >"$tmp/dump.out" 2>&1 &
		dump=$!
		sleep "0.0$((RANDOM % 50 + 10))"
		kill -KILL "$dump" 2>/dev/null || true
		wait "$dump" 2>/dev/null || true
		kill -0 "$pid" 2>/dev/null || fail "it died with telefork, number $i"
	done
	finish here "$pid"
	;;
broken)
	# Nobody listens; then somebody who refuses.
	start here
	telefork move "$pid" "unix:$tmp/nobody" 2>"$tmp/move.err" && fail "moved to nobody" ||
		[ $? = 69 ] || fail "moved to nobody"
	receiver small "$build/bin/telefork" serve --once --max-memory 1 --insecure tcp://127.0.0.1:0
	telefork move "$pid" "$address" 2>"$tmp/move.err" &&
		fail "moved where there is no room"
	grep -q 'this receiver takes 1048576 at most' "$tmp/move.err" || fail "no reason given"
	[ "$(state "$pid")" != T ] || fail "it was left stopped"
	finish here "$pid"
	;;
stopped)
	start here
	kill -STOP "$pid"
	within "it does not stop" is_stopped "$pid"
	telefork dump "$pid" -o "$tmp/image" >"$tmp/dump.out"
	within "it does not stop" is_stopped "$pid"
	kill -CONT "$pid"
	finish here "$pid"
	# Moved, it stays so over there, too, and goes on from where it was; its name need not be UTF-8.
	cp "$probe" "$tmp"/$'\xff'probe
	probe=$tmp/$'\xff'probe
	serve unix:"$tmp/socket"
	start moved
	kill -STOP "$pid"
	within "it does not stop" is_stopped "$pid"
	telefork move "$pid" "$address" >"$tmp/move.out" 2>"$tmp/move.err" || fail "move: $?"
	there=$(sed -n 's/.*moved: pid \([0-9]*\): .*/\1/p' "$tmp/move.out")
	[ "$(state "$there")" = T ] || fail "process $there is not stopped: $(state "$there")"
	! grep -q right "$tmp/serve.err" || fail "it ran over there"
	[ "$(telefork jobs --json | grep -cF '/\\xffprobe"')" = 2 ] || fail "jobs: $(telefork jobs --json)"
	! telefork jobs | LC_ALL=C grep -q $'\xff' || fail "jobs: what another chose goes to the terminal"
	kill -CONT "$there"
	arrived 1
	;;
refused)
	# A limit of processes, which root does not have.
	if [ "$(id -u)" = 0 ]; then
		chmod 711 "$tmp"
		cp "$probe" "$tmp/probe"
		probe=$tmp/probe as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
	fi
	start here
	telefork dump "$pid" -o "$tmp/image" >"$tmp/dump.out" 2>"$tmp/dump.err" || fail "dump: $?"
	[ ! -s "$tmp/dump.err" ] || fail "it can be forked, or not?"
	"${as[@]}" prlimit --pid "$pid" --nproc=1
	telefork dump "$pid" -o "$tmp/image" >"$tmp/dump.out" 2>"$tmp/dump.err" || fail "dump: $?"
	[ "$(cat "$tmp/dump.err")" = "telefork dump: process $pid stands still until all is written: no \
fork of it can be made (fork: Resource temporarily unavailable)" ] || fail "what it says"
	grep -q "^$pid saved: frozen " "$tmp/dump.out" || fail "how long it was frozen"
	finish here "$pid"
	;;
obstacles)
	mkfifo "$tmp/fifo"
	begin here bash -c 'exec 5<>"$1"; sleep 1000 & echo "$!" >"$2"; wait' - "$tmp/fifo" "$tmp/child"
	within "it has no child" test -s "$tmp/child"
	pids+=("$(cat "$tmp/child")")
	telefork check "$pid" >"$tmp/check.out" && fail "no obstacle" || [ $? = 78 ] || fail "check"
	grep -q "^obstacle: pipe: descriptor 5 ($tmp/fifo): .*--allow pipe" "$tmp/check.out" || fail "pipe"
	grep -q "^obstacle: child: process $(cat "$tmp/child"): " "$tmp/check.out" || fail "child"
	telefork check --json "$pid" | grep -q '"kind": "child"' || fail "json"
	telefork dump "$pid" -o "$tmp/image" 2>"$tmp/dump.err" && fail "went all the same" ||
		[ $? = 78 ] || fail "dump"
	[ ! -e "$tmp/image" ] || fail "an image in spite of obstacles"
	telefork dump "$pid" -o "$tmp/image" --allow pipe,child >"$tmp/dump.out" 2>"$tmp/dump.err" ||
		fail "dump --allow"
	grep -q '^telefork dump: left behind: pipe: ' "$tmp/dump.err" || fail "what was left"
	# None of this id, one that nobody has waited for, and one that ends while a receiver is looked for.
	here=$pid
	begin zombie perl -e '$| = 1; my $p = fork; exit unless $p; print "$p\n"; sleep 1000'
	within "no zombie" test -s "$tmp/zombie.out"
	zombie=$(cat "$tmp/zombie.out")
	within "no zombie" is_gone "$zombie"
	for command in check "dump -o $tmp/image2" "copy unix:$tmp/nobody" "move unix:$tmp/nobody"; do
		read -ra words <<<"$command"
		expect 78 telefork "${words[@]:0:1}" 4194304 "${words[@]:1}"
		says "telefork: ${words[0]}: there is no process 4194304"
		expect 78 telefork "${words[@]:0:1}" "$zombie" "${words[@]:1}"
		says ": ended: process $zombie: it has ended"
	done
	[ ! -e "$tmp/image2" ] || fail "an image of nothing"
	printf '#!/bin/sh\nkill -KILL %d\nexec "%s" serve --once -\n' "$here" "$build/bin/telefork" >"$tmp/ssh"
	chmod +x "$tmp/ssh"
	TELEFORK_SSH=$tmp/ssh expect 78 telefork copy --allow pipe,child "$here" ssh://host
	says "telefork copy: process $here has ended meanwhile"
	;;
asked)
	receiver small "$build/bin/telefork" serve --max-memory 1 --insecure tcp://127.0.0.1:0
	small=$address
	serve "unix:$tmp/socket"
	start here
	telefork check --to "$address" "$pid" >"$tmp/check.out" || fail "there is room: $?"
	grep -q "^process $pid can travel to $address" "$tmp/check.out" || fail "what check says"
	telefork check --to "$small" "$pid" >"$tmp/check.out" && fail "no obstacle" || [ $? = 78 ] || fail "check"
	grep -q "^obstacle: $small: memory: .* this receiver takes 1048576 at most" "$tmp/check.out" || fail "memory"
	telefork check --json --to "$small" "$pid" >"$tmp/check.out" && fail "no obstacle" || [ $? = 78 ] || fail "json"
	grep -q '^    "memory: up to' "$tmp/check.out" || fail "json"
	telefork check --to "unix:$tmp/nobody" "$pid" 2>"$tmp/check.err" && fail "nobody" || [ $? = 69 ] || fail "nobody"
	! grep -q ': pid [0-9]* (was' "$tmp/serve.err" "$tmp/small.err" || fail "something was received"
	grep -q 'nothing came: the sender asked only' "$tmp/serve.err" || fail "the receiver does not say so"
	[ "$(state "$pid")" != T ] || fail "it was left stopped"
	telefork move "$pid" "$address" >"$tmp/move.out" 2>"$tmp/move.err" || fail "move: $?"
	arrived 1
	;;
progress)
	start here
	# The pipe is read late: when the rest is read, it is time to say something.
	cat >"$tmp/copy" <<-EOF
		"$build/bin/telefork" copy \$1 $pid - | { head -c 1; sleep 0.5; cat; } >"$tmp/stream"
	EOF
	script -qec "bash '$tmp/copy' ''" "$tmp/tty" >"$tmp/script.out"
	grep -Eaq $'\r\033\\[K\\[#* *\\] +[0-9]+%  [0-9.]+ [KM]iB of [0-9.]+ MiB  [0-9.]+ [KM]iB/s  [0-9:]+ (s )?left' \
		"$tmp/tty" || fail "no bar: $(cat -v "$tmp/tty")"
	grep -Eaq "$pid copied: frozen [0-9.]+ ms, total [0-9.]+ ms, [0-9.]+ MiB of memory, [0-9.]+ MiB sent" "$tmp/tty" ||
		fail "no summary: $(cat -v "$tmp/tty")"
	script -qec "bash '$tmp/copy' --quiet" "$tmp/tty" >"$tmp/script.out"
	! grep -aq '%\|copied' "$tmp/tty" || fail "not quiet: $(cat -v "$tmp/tty")"
	bash "$tmp/copy" '' 2>"$tmp/copy.err"
	! grep -q $'[\r\033]' "$tmp/copy.err" || fail "a bar without a terminal"
	finish here "$pid"
	# From a pipe, for it is a stream and no image.
	head -c -0 "$tmp/stream" | telefork restore - >"$tmp/there.out" 2>"$tmp/there.err" || fail "more than the stream came"
	;;
*) fail "no such case: $case" ;;
esac
