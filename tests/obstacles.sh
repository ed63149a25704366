#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# obstacles.sh BUILD [KIND...]: every kind of obstacle that telefork check knows, by a program that really
# has it (tests/probes/obstacles.c). It is named, alone and with its number; copy, move and dump refuse; where
# it may be allowed, dump --allow goes on and says what was left; the program never notices. What this kernel
# does not have is said. A kind that no program shows is a failure.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$(cd "$1" && pwd)
shift
here=$(cd "$(dirname "$0")" && pwd)
telefork=$build/bin/telefork
probe=$build/probes/obstacles-static
cd "$tmp"

# start COMMAND: the program, with nothing but its standard streams. Returns 1 if there is no such obstacle.
start() {
	echo "$case"
	rm -f ./*.out ./*.err image
	mkfifo said.out
	begin said "$@"
	exec 9<said.out
	rm said.out
	read -r -t 120 word which <&9 || fail "no word from it"
	case $word in
	ready) ;;
	skip) echo "skip: $case: this machine has none: $which" && wait "$pid" && return 1 ;;
	*) fail "it says $word" ;;
	esac
}

# The one obstacle (and what always comes with it), as check, or another command before it does anything.
told() {
	[ "$(cut -d: -f2 "$1" | grep -vxF " $also" | sort -u)" = " $kind" ] || fail "not just this: $(cat "$1")"
	grep -qF ": $kind: $which" "$1" || fail "not named $which: $(cat "$1")"
}

# What cannot be looked at by root can be without root's right to look.
unprivileged() { setpriv --bounding-set -sys_ptrace -- "$@"; }
# Nor filters be read.
unadministrative() { setpriv --bounding-set -sys_admin -- "$@"; }

refused() {
	local command=$1
	shift
	"$as" "$telefork" "$command" "$@" >refused.out 2>refused.err && fail "$command went all the same" ||
		[ $? = 78 ] || fail "$command: another reason"
	told refused.err
}

finish() {
	kill -USR1 "$pid"
	read -r -t 120 word <&9 || word=nothing
	[ "$word" = works ] || fail "it was harmed: $word"
	wait "$pid" || fail "exit code $?"
	exec 9<&-
}

as=env also=
try() {
	local pid_of=$pid
	"$as" "$telefork" check "$pid" >check.out 2>check.err && fail "no obstacle" || [ $? = 78 ] || fail "check"
	told check.out
	"$as" "$telefork" check --json "$pid" | grep -qF "\"kind\": \"$kind\"" || fail "json"
	refused dump "$pid" -o image
	refused copy "$pid" unix:nobody
	refused move "$pid" unix:nobody
	[ ! -e image ] || fail "an image in spite of it"
	if grep -qF -- "--allow $kind" check.out; then
		"$telefork" dump "$pid" -o image --allow "$kind" >dump.out 2>dump.err || fail "dump --allow: $?"
		grep -qF "telefork dump: left behind: $kind: $which" dump.err || fail "what was left"
		"$telefork" restore --dry-run image >plan.out 2>plan.err || fail "no plan of what was allowed"
	elif "$as" "$telefork" dump "$pid" -o image --allow "$kind" >dump.out 2>dump.err; then
		fail "cannot be allowed, and was"
	fi
	[ "$pid" = "$pid_of" ] && finish
}

one() {
	case=$1 kind=${1%%.*}
	seen="$seen $kind"
	start "$probe" "$case" || return 0
	as=env also=
	[ "$kind" != access ] || as=unprivileged
	[ "$kind" != seccomp ] || as=unadministrative
	[ "$kind" != uninterruptible ] || also=child
	[ "$kind" = clean ] || { try; return; }
	"$telefork" check "$pid" >check.out || fail "$(cat check.out)"
	"$telefork" dump "$pid" -o image >dump.out || fail "dump"
	finish
}

seen=
if [ $# -gt 0 ]; then
	for case; do one "$case"; done
	exit
fi
case=kinds
"$probe" >kinds
mapfile -t cases <kinds
for case in "${cases[@]}"; do one "$case"; done

# A 32-bit program. `as` and `ld` make it without a library.
case=machine kind=machine
seen="$seen $kind"
if as --32 "$here/probes/i386.S" -o i386.o 2>/dev/null && ld -m elf_i386 i386.o -o i386 2>/dev/null && start ./i386; then
	try
else
	echo "skip: machine: 32-bit programs cannot be built or run here"
fi

# A 64-bit one in the middle of such code: only its registers tell.
case=mixed
if as --64 --defsym MIXED=1 "$here/probes/i386.S" -o mixed.o 2>/dev/null && ld -m elf_x86_64 mixed.o -o mixed 2>/dev/null && start ./mixed; then
	"$telefork" check "$pid" >check.out || fail "$(cat check.out)"
	if "$telefork" dump "$pid" -o image 2>dump.err; then fail "dump went"; fi
	grep -q "thread $pid runs 32-bit code" dump.err || fail "not named"
	[ ! -e image ] || fail "an image in spite of it"
	finish
else
	echo "skip: mixed: such programs cannot be built or run here"
fi

# A connection that goes along is found reset.
case=tcp kind=tcp
if start "$probe" tcp; then
	"$telefork" dump "$pid" --tcp=reset -o image >dump.out 2>dump.err || fail "dump --tcp=reset"
	grep -q "left behind: tcp: $which" dump.err || fail "not said: $(cat dump.err)"
	finish
	"$telefork" restore --detach image >there.out 2>there.err </dev/null || fail "restore"
	pid=$(tail -n 1 there.out)
	pids+=("$pid")
	kill -USR1 "$pid"
	within "over there" grep -q work there.out
	grep -q '^does not work: Connection reset by peer' there.out || fail "$(cat there.out)"
fi

case=kinds
for kind in $("$telefork" check --help | sed -n '/^Kinds of obstacles/,/^$/s/^  \([a-z_0-9-]*\)\*\{0,1\}  .*/\1/p'); do
	case " $seen " in
	*" $kind "*) ;;
	*) fail "no program shows $kind" ;;
	esac
done
echo "kinds of obstacles: $(tr ' ' '\n' <<<"$seen" | sort -u | grep -c .), programs: ${#cases[@]}"
