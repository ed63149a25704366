#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# later.sh BUILD CASE [VARIANT [MIB]]: post-copy (copy and move --lazy) of a running program that checks its memory.
# Of tests/probes/later.c:
#   copy, move              nothing comes until the program waits for memory
#   unix                    the same over a unix socket, as it comes
#   slow, packed            over a slow line it comes compressed, by itself; and because that is wished for
#   damaged                 a bit of what comes compressed is another one: the copy ends, and has seen nothing of it
#   all, user, qemu         a receiver that may not use userfaultfd, for want of capabilities, as an ordinary user or
#                           under QEMU user mode, gets all of it first, and that is said
#   known                   pages of files that are there do not come, and the copy has the files mapped; where another
#                           file has that name they come
#   nobody                  where nobody answers, it is refused at once
#   broken, sender, receiver  the connection breaks, or one of the two is killed, while memory is on its way: the copy
#                           ends, nothing is left, and the original stands stopped until settle --resume-here
# Of tests/probes/storm.c, a copy each:
#   threads, forks, shared, huge, holes, early, pressure  see there; early moves
#   swap                    pressure, in a guest, with less memory than comes
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$(cd "$1" && pwd) case=$2 probe=$(cd "$1" && pwd)/probes/later-${3-pie}
mkdir "$tmp/there"
as=() with=() mib=${4-} receiver=$build/bin/telefork
tidy() { [ ! -d "$tmp/cgroup" ] || umount "$tmp/cgroup"; }

start() { begin_ready here "${with[@]}" "$probe" "$@"; }
serve() { receiver serve "${as[@]}" "$receiver" serve --insecure --allow credentials "$1"; }

arrived() { within "over there" grep -q '^right' "$tmp/serve.err"; }
# The pid of what came, as the receiver says.
there() { sed -n 's/^telefork: pid \([0-9]*\) (was .*/\1/p' "$tmp/serve.err"; }
# Of the program in $pid: it is that one, with its library.
is_mapped() { grep -q "r-xp .*$1" "/proc/$pid/maps" && grep -q 'r-xp .*/libc' "/proc/$pid/maps"; }
has_come() { [ -n "$(there)" ]; }

no_guard() { ! pgrep -x -r S,R,D "tfguard-$copy" >/dev/null; }

# What asks gets its answers: it ran there when nothing of what comes later had come.
asked() {
	grep -q asked "$tmp/gate.out" || fail "it did not wait for its memory"
	grep -Eq '[1-9][0-9]* requests' "$tmp/send.out" || fail "nothing was asked for: $(cat "$tmp/send.out")"
}

# A move whose memory stops coming after some MiB; it runs there, and waits.
begin_to_move() {
	serve tcp://127.0.0.1:0
	start "${mib:-128}"
	open_gate 20000000
	"$build/bin/telefork" move --lazy "$pid" "$door" >"$tmp/send.out" 2>"$tmp/send.err" &
	sender=$!
	within "it does not run there" has_come
	within "memory is not held back" grep -q held "$tmp/gate.out"
	copy=$(there)
	within "it has no guard" pgrep -x "tfguard-$copy" >/dev/null
	pids+=("$copy")
	session=$(sed -n 's/^PPid:\t//p' "/proc/$copy/status")
	[ "$(state "$pid")" != R ] || fail "the original runs"
}

# Whatever happened: the copy is gone, and the original is let go on by the user's word.
end_of_move() {
	within "the copy does not end" is_gone "$copy"
	within "something is left there" is_gone "$session"
	within "a guard is left" no_guard
	! grep -q wrong "$tmp/serve.err" || fail "the copy went on without its memory"
	[ "$(state "$pid")" = T ] || fail "the original does not stand: $(state "$pid")"
	telefork settle >"$tmp/settle.out" 2>"$tmp/settle.err" && fail "settled without a word"
	grep -q 'was ended before all of its memory had come' "$tmp/settle.err" || fail "what settle says"
	[ "$(state "$pid")" = T ] || fail "settle let it go on"
	id=$(basename "$tmp"/state/telefork/moves/*.committing .committing)
	telefork settle --resume-here "$id" >"$tmp/settle.out" 2>&1 || fail "settle --resume-here: $?"
	kill -USR1 "$pid"
	wait "$pid" || fail "the original: exit code $?"
	grep -q '^right' "$tmp/here.out" || fail "the original: not right"
}

# first OPTION...: without userfaultfd all of it comes first.
first() {
	serve "unix:$tmp/there/socket"
	cd / # a folder that everybody may enter
	start 16
	telefork move --lazy "$@" "$pid" "$address" >"$tmp/send.out" 2>"$tmp/send.err" || fail "move: $?"
	grep -q 'cannot wait for memory' "$tmp/send.err" || fail "it does not say so"
	arrived
}

# Of a guest: 12 MiB for the receiver and all that comes, and a RAM disk for what else there is.
make_swap() {
	[ -b /dev/ram0 ] || fail "only a guest has a RAM disk to swap to"
	mkswap /dev/ram0 >/dev/null
	swapon /dev/ram0
	mkdir "$tmp/cgroup"
	mount -t cgroup2 none "$tmp/cgroup"
	echo +memory >"$tmp/cgroup/cgroup.subtree_control"
	mkdir "$tmp/cgroup/there"
	echo 12M >"$tmp/cgroup/there/memory.max"
	as=(bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$tmp/cgroup/there")
}
swapped() {
	grep -q '^max [1-9]' "$tmp/cgroup/there/memory.events" || fail "there was memory enough"
	! grep -q '^oom_kill [1-9]' "$tmp/cgroup/there/memory.events" || fail "something was killed"
	grep -q '^pswpin [1-9]' /proc/vmstat || fail "nothing came back from the swap"
}

# refused CODE TEXT COMMAND...: at once, and with the way out.
refused() {
	local code=$1 text=$2 rc=0
	shift 2
	"$@" >"$tmp/send.out" 2>"$tmp/send.err" || rc=$?
	[ "$rc" = "$code" ] || fail "$*: exit code $rc, not $code"
	grep -q -e "$text" "$tmp/send.err" || fail "$*: no \"$text\""
}

case $case in
copy)
	serve tcp://127.0.0.1:0
	open_gate answer 1
	start "${mib:-128}"
	telefork copy --lazy "$pid" "$door" >"$tmp/send.out" || fail "copy: $?"
	arrived
	asked
	kill -USR1 "$pid"
	wait "$pid" || fail "here: exit code $?"
	;;
threads | forks | shared | huge | holes | pressure | swap)
	probe=$build/probes/storm-${3-pie} mode=${case/swap/pressure}
	[ "$case" != swap ] || make_swap
	serve tcp://127.0.0.1:0
	open_gate answer 1
	start "$mode" "${mib:-24}"
	telefork copy --lazy "$pid" "$door" >"$tmp/send.out" || fail "copy: $?"
	arrived
	asked
	[ "$case" != swap ] || swapped
	kill -USR1 "$pid"
	wait "$pid" || fail "here: exit code $?"
	;;
early)
	probe=$build/probes/storm-${3-pie}
	serve tcp://127.0.0.1:0
	start early "${mib:-24}"
	telefork move --lazy "$pid" "$address" >"$tmp/send.out" || fail "move: $?"
	wait "$pid" && fail "the original ended by itself" || [ $? = 137 ] || fail "the original lives"
	arrived
	;;
move)
	serve tcp://127.0.0.1:0
	open_gate answer 2 # the first one is that it is prepared
	start "${mib:-128}"
	telefork move --lazy "$pid" "$door" >"$tmp/send.out" || fail "move: $?"
	wait "$pid" && fail "the original ended by itself" || [ $? = 137 ] || fail "the original lives"
	arrived
	asked
	;;
unix)
	serve "unix:$tmp/socket"
	start "${mib:-128}"
	telefork move --lazy "$pid" "$address" >"$tmp/send.out" || fail "move: $?"
	arrived
	;;
slow)
	# What the line can carry is found out on the way, later where the machine is busy.
	for more in 1 2 4 8; do
		rm -f "$tmp"/*.out "$tmp"/*.err
		serve tcp://127.0.0.1:0
		start $((${mib:-32} * more)) soft
		slow 16000000
		telefork copy --lazy "$pid" "$address" >"$tmp/send.out" || fail "copy: $?"
		arrived
		kill -USR1 "$pid"
		wait "$pid" || fail "here: exit code $?"
		cat "$tmp/send.out"
		[ "$(bytes sent)" -ge $(($(bytes 'of memory') * 9 / 10)) ] || break
	done
	grep -Eq ' requests, .* by (lz4|zstd): ' "$tmp/send.out" || fail "it came as it is"
	[ "$(bytes sent)" -lt $(($(bytes 'of memory') * 9 / 10)) ] || fail "sent: as much"
	;;
packed)
	serve tcp://127.0.0.1:0
	open_gate answer 2
	start "${mib:-8}" soft
	telefork move --lazy --compress=lz4 "$pid" "$door" >"$tmp/send.out" || fail "move: $?"
	wait "$pid" && fail "the original ended by itself" || [ $? = 137 ] || fail "the original lives"
	arrived
	asked
	grep -q ' by lz4: ' "$tmp/send.out" || fail "it came as it is: $(cat "$tmp/send.out")"
	[ "$(bytes sent)" -lt $(($(bytes 'of memory') * 8 / 10)) ] || fail "sent: $(cat "$tmp/send.out")"
	cat "$tmp/send.out"
	;;
damaged)
	for at in 5000000 8000001 12000002; do
		rm -f "$tmp"/*.out "$tmp"/*.err
		serve tcp://127.0.0.1:0
		start "${mib:-4}" soft
		open_gate flip "$at"
		"$build/bin/telefork" copy --lazy --compress=lz4 "$pid" "$door" >"$tmp/send.out" 2>"$tmp/send.err" && fail "copied"
		has_come || fail "it did not run there"
		within "the copy does not end" is_gone "$(there)"
		grep -Eq 'arrived damaged|packed extent at|comes later: ' "$tmp/send.err" || fail "what copy says"
		! grep -Eq '^(right|wrong)' "$tmp/serve.err" || fail "it saw what was damaged"
		kill -USR1 "$pid"
		wait "$pid" || fail "the original: exit code $?"
	done
	;;
known)
	cp "$(command -v sleep)" "$tmp/sleeper"
	cp "$tmp/sleeper" "$tmp/other"
	echo >>"$tmp/other" # another size
	for as_there in same other; do
		as=()
		if [ "$as_there" = other ]; then
			unshare -m true 2>/dev/null || break # only root has other files there
			# shellcheck disable=SC2016
			as=(unshare -m bash -c 'mount --bind "$0" "$1" && shift && exec "$@"' "$tmp/other" "$tmp/sleeper")
		fi
		rm -f "$tmp"/*.out "$tmp"/*.err
		serve tcp://127.0.0.1:0
		begin here "$tmp/sleeper" 300
		within "it does not start" is_mapped "$tmp/sleeper"
		telefork copy --lazy "$pid" "$address" >"$tmp/send.out" || fail "copy: $?"
		copy=$(there)
		pids+=("$copy")
		cat "$tmp/send.out"
		if grep -q "r-xp .*$tmp/sleeper\$" "/proc/$copy/maps"; then mapped=same; else mapped=other; fi
		[ "$mapped" = "$as_there" ] || fail "its program: as if it were the $mapped file"
		grep -q 'r-xp .*/libc' "/proc/$copy/maps" || fail "a library that is there has come"
		[ "$(bytes 'of memory')" -lt 1000000 ] || fail "what is there has come"
		kill "$copy"
	done
	;;
nobody)
	start 1
	refused 64 'leave --store away' telefork copy --lazy --store=always "$pid" -
	refused 69 'nobody answers there.*without --lazy' telefork copy --lazy "$pid" "$tmp/image"
	refused 69 'nobody answers there.*without --lazy' telefork copy --lazy "$pid" -
	refused 64 'an image in a file is whole' telefork dump --lazy "$pid" -o "$tmp/image"
	[ ! -e "$tmp/image" ] || fail "an image is there"
	kill -USR1 "$pid"
	wait "$pid" || fail "here: exit code $?"
	;;
all)
	as=(setpriv '--bounding-set=-sys_ptrace,-sys_admin')
	[ "$(cat /proc/sys/vm/unprivileged_userfaultfd)" = 0 ] || as=(false)
	first
	;;
user)
	# Root's process for an ordinary user: only root can play both.
	if [ "$(id -u)" = 0 ]; then
		chmod 711 "$tmp"
		chown 65534:65534 "$tmp/there"
		receiver=$tmp/there/receiver
		cp "$build/bin/telefork" "$receiver"
		as=(env XDG_STATE_HOME="$tmp/there" setpriv --reuid 65534 --regid 65534 --clear-groups)
	fi
	[ "$(cat /proc/sys/vm/unprivileged_userfaultfd)" = 0 ] || as=(false)
	first --compress=zstd
	;;
qemu)
	export QEMU_STACK_SIZE=268435456
	with=("$build/bin/telefork" run --baseline x86-64-v3 --)
	as=(qemu-x86_64 -cpu max) receiver=$build/bin/telefork-pad
	first
	;;
broken)
	begin_to_move
	pkill -P "$gate"
	wait "$sender" && fail "moved" || [ $? = 75 ] || fail "move: $?"
	grep -q 'settle --resume-here' "$tmp/send.err" || fail "what move says"
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
	wait "$sender" && fail "moved" || [ $? = 75 ] || fail "move: $?"
	end_of_move
	;;
*)
	echo "no such case: $case" >&2
	exit 2
	;;
esac
