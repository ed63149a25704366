#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# verify.sh BUILD PROBE: telefork verify on a process that stands at one instruction (tests/probes/still.c).
# Just saved it is the same, stopped by a signal or not; one byte, one protection and one register
# are a difference each, named, and nothing else is named with it.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$1 probe=$2

# exits CODE ARGUMENT...: telefork verify does; what it says is in $tmp/out.
exits() {
	local code=$1 rc=0
	shift
	telefork verify "$@" >"$tmp/out" 2>&1 || rc=$?
	[ "$rc" = "$code" ] || fail "verify $*: exit code $rc, not $code: $(cat "$tmp/out")"
}
# same FILE: it is as it was, and something of each kind was compared.
same() {
	exits 0 "$pid" "$1"
	awk '/^(registers|mappings|bytes|state) / && $2 > 0 { n++ } END { exit n != 4 }' "$tmp/out" ||
		fail "nothing was compared: $(cat "$tmp/out")"
}
# differs PATTERN FILE: it does so, and no signal is pending.
differs() {
	telefork verify "$pid" "$2" >"$tmp/out" 2>&1 || [ $? = 1 ] || fail "$(cat "$tmp/out")"
	grep -q "$1" "$tmp/out" && ! grep -q '^pending' "$tmp/out"
}
# names PATTERN FILE: the only difference. What made it may still be on its way.
names() {
	within "no '$1'" differs "$@"
	exits 1 "$pid" "$2"
	grep -q "$1" "$tmp/out" || fail "no '$1' in: $(cat "$tmp/out")"
	[ "$(sed '/^registers /,$d' "$tmp/out" | wc -l)" = 1 ] || fail "more than '$1': $(cat "$tmp/out")"
	echo "named: $(head -1 "$tmp/out")"
}
save() { telefork dump "$pid" --allow all -o "$tmp/$1" >"$tmp/out" 2>&1 || fail "dump: $(cat "$tmp/out")"; }
# with_gdb COMMAND...: at the process.
with_gdb() {
	local command arguments=()
	for command; do arguments+=(-ex "$command"); done
	gdb-multiarch -nx -batch -p "$pid" "${arguments[@]}" >"$tmp/gdb" 2>&1 || fail "gdb: $(cat "$tmp/gdb")"
}

mkfifo "$tmp/holding"
"$build/probes/$probe" "$tmp/image" >"$tmp/holding" </dev/null 2>/dev/null &
pid=$!
read -r _ <"$tmp/holding"
until save first && telefork inspect "$tmp/first" | grep -q ' in stand_still'; do :; done
same "$tmp/first"
kill -STOP "$pid"
within "it does not stop" is_stopped "$pid"
save stopped
same "$tmp/stopped"
within "it does not stand still any more" is_stopped "$pid"
kill -CONT "$pid"
kill -USR2 "$pid"
names 'changed_byte+0x5: 00 -> 80$' "$tmp/first"
exits 1 --json "$pid" "$tmp/first"
grep -q '"symbol": "changed_byte"' "$tmp/out" || fail "--json: $(cat "$tmp/out")"
save byte
kill -WINCH "$pid"
names 'protection: read,write -> read$' "$tmp/byte"
save protection
case $(uname -m) in x86_64) register=r12 ;; *) register=x23 ;; esac
with_gdb "set \$$register = 0x1234567"
names "register $register: [0-9a-f]* -> 0*1234567\$" "$tmp/protection"
[ "$(awk '/^TracerPid/ { print $2 }' "/proc/$pid/status")" = 0 ] || fail "it is still traced"
exits 66 "$pid" "$tmp/no-such-file"
kill -KILL "$pid"
wait "$pid" 2>/dev/null || true
exits 71 "$pid" "$tmp/byte"
grep -q "process $pid" "$tmp/out" || fail "no process: $(cat "$tmp/out")"
echo "verify: ok"
