#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# witness.sh BUILD PROBE [RUNNER]: what a witness says of a program that stands still.
#   - looked at twice it is the same; a changed byte or protection is named, exit code 1
#   - its copy is what was sent: the image held against the witness's look at the copy
# Under RUNNER (qemu-aarch64, ...) nobody can look from outside: the copy saves itself again, and the
# two images are compared.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$1 probe=$2
runner ${3+"$3"}
telefork=$(dirname "$0")/../build/$(uname -m)/bin/telefork
witness=$build/bin/telefork-witness

# Whether the image's program stands where it should. A copy's code is plain memory without a name:
# then it is the address that counts.
address=
still() {
	local at
	at=$("$telefork" inspect "$1" | grep '^  at 0x')
	case $at in *' in stand_still'*) address=$(echo "$at" | cut -d' ' -f4) ;; esac
	[ -n "$address" ] && [ "$(echo "$at" | cut -d' ' -f4)" = "$address" ]
}

# look PID FILE
look() {
	until "$witness" "$1" "$2" >"$tmp/said" && still "$2"; do :; done
}

# look_changed PID OLD FILE: a signal that changes something is on its way; it may still be pending.
look_changed() {
	until look "$1" "$3" && ! "$telefork" diff "$2" "$3" >"$tmp/changed" &&
		! grep -q '^pending' "$tmp/changed"; do :; done
}

# save PID FILE: the process saves itself.
save() {
	until [ -e "$2" ] && still "$2"; do
		rm -f "$2"
		kill -USR1 "$1"
		while [ ! -e "$tmp/image" ]; do sleep 0.01; done
		mv "$tmp/image" "$2"
	done
}

# start COMMAND...: sets started to the pid that it says it holds at.
start() {
	mkfifo "$tmp/out"
	"$@" >"$tmp/out" &
	read -r _ started <"$tmp/out"
	rm "$tmp/out"
}

# land FILE: sets started to the copy's pid.
land() {
	"${receive[@]}" "$build/bin/telefork-pad" restore "$1" >"$tmp/log" 2>&1 &
	local pad=$!
	started=
	while [ -z "$started" ]; do
		[ -d /proc/$pad ] || fail "not restored: $(cat "$tmp/log")"
		started=$(cat "/proc/$pad/task/$pad/children")
		# Before it is the copy it is the receiver still.
		if [ -n "$started" ] && [ "$(cat "/proc/${started% }/comm" 2>/dev/null)" != standing-still ]; then
			started=
		fi
	done
	started=${started% }
	pids+=("$started")
}

# same A B: nothing is lost, and something was compared.
same() {
	"$telefork" diff "$1" "$2" >"$tmp/diff" || fail "$(basename "$1") and $(basename "$2"): $(cat "$tmp/diff")"
	awk '/^(registers|mappings|bytes|state) / && $2 > 0 { n++ } END { exit n != 4 }' "$tmp/diff" ||
		fail "nothing was compared: $(cat "$tmp/diff")"
	echo "$(basename "$1") and $(basename "$2"): $(tr '\n' ';' <"$tmp/diff")"
}

# names PATTERN A B: that is the only loss.
names() {
	local rc=0
	"$telefork" diff "$2" "$3" >"$tmp/diff" || rc=$?
	[ $rc = 1 ] || fail "exit code $rc instead of 1: $(cat "$tmp/diff")"
	grep -q "$1" "$tmp/diff" || fail "no '$1' in: $(cat "$tmp/diff")"
	[ "$(sed '/^registers /,$d' "$tmp/diff" | wc -l)" = 1 ] || fail "more than '$1': $(cat "$tmp/diff")"
	echo "named: $(head -1 "$tmp/diff")"
}

start "${run[@]}" "$build/probes/$probe" "$tmp/image"
pid=$started
if [ ${#run[@]} = 0 ]; then
	look "$pid" "$tmp/first"
	look "$pid" "$tmp/second"
	same "$tmp/first" "$tmp/second"
	grep -q ": $(awk '/^registers/ { print $2 }' "$tmp/diff") registers" "$tmp/said" ||
		fail "not all registers were compared: $(cat "$tmp/said" "$tmp/diff")"
	kill -USR2 "$pid"
	look_changed "$pid" "$tmp/first" "$tmp/byte"
	names 'changed_byte+0x5: 00 -> 80$' "$tmp/first" "$tmp/byte"
	kill -WINCH "$pid"
	look_changed "$pid" "$tmp/byte" "$tmp/protection"
	names 'protection: read,write -> read$' "$tmp/byte" "$tmp/protection"
	[ "$(awk '/^TracerPid/ { print $2 }' "/proc/$pid/status")" = 0 ] || fail "it is still traced"
else
	if out=$("${run[@]}" "$witness" "$pid" "$tmp/first" 2>&1); then fail "a witness under ${run[*]}: $out"; fi
	case $out in *"no ptrace"*) ;; *) fail "not refused by name: $out" ;; esac
fi
save "$pid" "$tmp/sent"
kill "$pid"
land "$tmp/sent"
if [ ${#run[@]} = 0 ]; then
	look "$started" "$tmp/arrived"
else
	save "$started" "$tmp/arrived"
fi
same "$tmp/sent" "$tmp/arrived"
