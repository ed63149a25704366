# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # used here and set by the scripts, and the other way round
# Read by the other scripts at their beginning. There is a folder $tmp then, and at the end it goes, and with it
# whatever the script has started and what is in pids: processes that are not its children. What is said belongs
# into $tmp/out, err and log, or into *.out and *.err there: a failure shows the end of it.
tmp=$(mktemp -d)
pids=()
export XDG_STATE_HOME=$tmp/state # journals of moves

# What else has to be undone; only then the folder goes.
tidy() { :; }
end_all() {
	local p
	exec 2>/dev/null # bash would tell who was killed
	# shellcheck disable=SC2046 # a list
	kill -KILL $(jobs -pr) || true
	for p in "${pids[@]}"; do # an id may be somebody else's by now
		! grep -qsF "$tmp" "/proc/$p/environ" || kill -KILL "$p" || true
	done
	! tidy || rm -rf "$tmp"
}
trap end_all EXIT

fail() {
	tail -n 20 "$tmp"/{out,err,log} "$tmp"/*.{out,err} >&2 2>/dev/null || true
	echo "FAILED: $*" >&2
	exit 1
}

# expect CODE COMMAND...: what it says goes to $tmp/out.
expect() {
	local want=$1 code=0
	shift
	"$@" >"$tmp/out" 2>&1 </dev/null || code=$?
	[ "$code" = "$want" ] || fail "exit code $code, not $want: $*"
}

# says TEXT [FILE]: it is in there; without FILE, in what was said last.
says() { grep -qF -- "$1" "${2-$tmp/out}" || fail "'$1' is not in ${2-$tmp/out}: $(tail -n 40 "${2-$tmp/out}")"; }

# within WHAT COMMAND...: comes true, in 200 seconds at most.
within() {
	local what=$1 until=$((SECONDS + 200))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$until" ] || fail "$what"
		sleep 0.02
	done
}

# state PID: its letter in /proc; nothing if there is no such process
state() { sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null; }
is_gone() { case $(state "$1") in '' | Z | X) ;; *) return 1 ;; esac }
is_stopped() { [ "$(state "$1")" = T ]; }

# word_of WORD FILE PID: what stands behind the word that begins a line, as soon as PID has said it.
word_of() {
	until grep -qs "^$1 " "$2"; do
		! is_gone "$3" || grep -qs "^$1 " "$2" || fail "process $3 ended, and did not say $1: $(cat "$2")"
		sleep 0.02
	done
	sed -n "s/^$1 //p" "$2"
}

telefork() { "$build/bin/telefork" "$@"; }

# runner [WORD...]: run is what programs of the build are run by (qemu-aarch64, ...), or nothing, and receive what
# receivers are: their stack is made larger than any program's, so that the pages which an emulator keeps next to
# it lie in nobody's way.
runner() {
	run=("$@") receive=("$@")
	[ $# = 0 ] || receive=(env QEMU_STACK_SIZE=1073741824 "$@")
}

# Closes all but the standard streams, of this shell or subshell.
close_descriptors() {
	local fd
	for fd in /proc/self/fd/*; do
		fd=${fd##*/}
		if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
	done
}

# begin NAME COMMAND...: a program with nothing but its standard streams, NAME.out and NAME.err. Its pid in $pid.
begin() {
	local name=$1
	shift
	(
		close_descriptors
		exec "$@" >"$tmp/$name.out" 2>"$tmp/$name.err" </dev/null
	) &
	pid=$!
}

# begin_ready NAME COMMAND...: the same, and it has said that it is ready.
begin_ready() {
	rm -f "$tmp/$1.out"
	begin "$@"
	until grep -qs ready "$tmp/$1.out"; do
		! is_gone "$pid" || grep -qs ready "$tmp/$1.out" || fail "$1: it does not start"
		sleep 0.01
	done
}

# receiver NAME COMMAND...: what says its address in NAME.out; that in $address, its pid in $server.
receiver() {
	local pid
	rm -f "$tmp/$1.out"
	begin "$@"
	server=$pid
	until [ -s "$tmp/$1.out" ]; do
		! is_gone "$server" || [ -s "$tmp/$1.out" ] || fail "$1: the receiver does not start"
		sleep 0.01
	done
	read -r address <"$tmp/$1.out"
}

# slow BYTES: a line of so many a second, to the port in $address, which it replaces.
slow() {
	local server
	receiver slow "$build/tests/tools/slow" "${address##*:}" "$1"
	address=tcp://127.0.0.1:$address
}

# open_gate ARGUMENTS...: in front of the receiver in $address; its own is in $door.
open_gate() {
	"$build/tests/tools/gate" "${address##*:}" "$@" >"$tmp/gate.out" &
	gate=$!
	within "the gate" test -s "$tmp/gate.out"
	door=tcp://127.0.0.1:$(head -n 1 "$tmp/gate.out")
}

# sum: of sizes as they are told, "64.7 MiB, 512 bytes"; in bytes
sum() {
	sed 's/ bytes//g; s/ KiB/*1024/g; s/ MiB/*1048576/g; s/ GiB/*1073741824/g; s/,/+/g' | bc | cut -d. -f1
}

# bytes WORD: how many the last line of a move or copy says so of: "64.7 MiB of memory, 1.0 MiB sent".
bytes() {
	sed -n "s/.*[ ,]\([0-9.]*\) \([KMG]iB\|bytes\) $1.*/\1 \2/p" "$tmp/send.out" | sum
}
