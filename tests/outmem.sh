#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# outmem.sh BUILD CASE [VARIANT]: the memory of a running program (tests/probes/outmem.c), dumped from
# outside and restored where files were changed, taken away or have grown. Cases: restore, lock (all of
# it locked), taken (names and keys that are in use over there, files that are others: refused with
# words, then allowed), used (shared memory that others use, too: told before anything is stopped).
set -eu
# Ids of shared memory are found again where root restores, unless others take them meanwhile.
if [ "$(id -u)" = 0 ] && [ -z "${OUTMEM_ALONE-}" ] && unshare --ipc true 2>/dev/null; then
	OUTMEM_ALONE=1 exec unshare --ipc bash "$0" "$@"
fi
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$(cd "$1" && pwd) case=$2 probe=$(cd "$1" && pwd)/probes/outmem-${3-pie}
pid=
# Names and keys that are in use.
gone() {
	rm -f "/dev/shm/outmem-$pid"
	ipcrm -M "$((0x7e000000 + pid))"
}
tidy() { [ -z "$pid" ] || gone 2>/dev/null || true; }

# start [ARGUMENT]: the program.
start() {
	mkdir "$tmp/files"
	begin_ready here "$probe" "$tmp/files" "$@"
}

dump() {
	telefork dump "$pid" -o "$tmp/image" "$@" >"$tmp/dump.out" 2>"$tmp/dump.err" || fail "dump: $?"
	[ -z "$*" ] || { wait "$pid"; } 2>/dev/null || true
}

# What a process over there finds: other files, or none.
scramble() {
	printf X | dd of="$tmp/files/changed" bs=1 seek=20000 conv=notrunc status=none
	printf X | dd of="$tmp/files/moved-on" bs=1 seek=5000 conv=notrunc status=none
	printf X | dd of="$tmp/files/tail" bs=1 seek=100 conv=notrunc status=none
	rm -f "$tmp/files/gone"
}

# restored: runs over there and is right.
restored() {
	telefork restore --detach "$tmp/image" >"$tmp/there.out" 2>"$tmp/there.err" ||
		fail "restore: $?"
	there=$(tail -n 1 "$tmp/there.out")
	pids+=("$there")
	kill -USR1 "$there"
	until grep -q '^right\|^wrong' "$tmp/there.out" && ! kill -0 "$there" 2>/dev/null; do
		[ -e "/proc/$there/status" ] || break
		sleep 0.01
	done
}

case $case in
restore | lock)
	arguments=()
	[ "$case" != lock ] || arguments=(lock)
	start "${arguments[@]}"
	dump --kill
	scramble
	gone
	restored
	grep -q '^right' "$tmp/there.out" || fail "over there"
	;;
taken)
	# Over here, with the original: a file that is another, a name and a key in use.
	start
	dump
	cp -r "$tmp/files" "$tmp/kept"
	printf X | dd of="$tmp/files/shared" bs=1 seek=9 conv=notrunc status=none
	telefork restore "$tmp/image" >"$tmp/there.out" 2>"$tmp/there.err" && fail "restored all the same" ||
		[ $? = 65 ] || fail "refused in another way"
	grep -q "files/shared, mapped shared: another file here.*--allow shared-file" "$tmp/there.err" ||
		fail "the file is not named"
	grep -q "/dev/shm/outmem-$pid, mapped shared: the name is in use here" "$tmp/there.err" ||
		fail "the name is not named"
	grep -q "SYSV.*, mapped shared: its key is in use here" "$tmp/there.err" || fail "the key is not named"
	telefork restore --detach --allow shared-file,shared-memory "$tmp/image" >"$tmp/there.out" \
		2>"$tmp/there.err" || fail "not even where it is allowed: $?"
	pids+=("$(tail -n 1 "$tmp/there.out")")
	grep -q "files/shared: another file here.*memory of its own" "$tmp/there.err" || fail "nothing was said"
	kill -KILL "$(tail -n 1 "$tmp/there.out")"
	cmp -s "$tmp/files/shared" "$tmp/kept/shared" && fail "the file over here was written to"
	# What was made before a restore failed is taken back: there is no descriptor left for the rest.
	kill -KILL "$pid"
	gone
	cp "$tmp/kept/shared" "$tmp/files/shared"
	: >"$tmp/there.out"
	head -c 200000 "$tmp/image" | telefork restore - >"$tmp/cut.out" 2>"$tmp/cut.err" && fail "a cut image"
	[ ! -e "/dev/shm/outmem-$pid" ] || fail "its name was left behind"
	;;
used)
	start
	telefork check "$pid" >"$tmp/check.out" || fail "an obstacle: $?"
	# Somebody else opens what it has mapped.
	sleep 1000 7<>"/dev/shm/outmem-$pid" &
	within "nobody opens it" test -e "/proc/$!/fd/7"
	telefork check "$pid" >"$tmp/check.out" && fail "no obstacle" || [ $? = 78 ] || fail "check"
	grep -q "^obstacle: shared-memory: /dev/shm/outmem-$pid, by process $!" "$tmp/check.out" ||
		fail "who uses it is not named"
	;;
*) fail "no such case: $case" ;;
esac
