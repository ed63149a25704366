#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# smallids.sh BUILD NUMBER: one of the threads that wait for a lock has the id NUMBER, which is futex(2)'s own: the
# id in its registers and the call's number are not to be taken for each other when it gets another id.
set -eu
if [ "${SMALL_IDS:-}" != inside ]; then
	options=(--pid --fork --mount-proc)
	[ "$(id -u)" = 0 ] || options+=(--map-root-user)
	SMALL_IDS=inside exec unshare "${options[@]}" bash "$0" "$@"
fi
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$1 number=$2

# first LINE FILE PID: waits for a line, as long as the process is there
first() {
	timeout 100 tail --pid="$3" -f -n +1 "$2" 2>/dev/null | grep -m 1 "$1" || fail "no line '$1'"
}

# The 42nd of its threads wants a lock of priority inheritance.
echo $((number - 43)) >/proc/sys/kernel/ns_last_pid
"$build/probes/locks-static" 49 >"$tmp/locks.out" &
pid=$!
[ $((pid + 42)) = "$number" ] || fail "its id is $pid"
# No other process may get an id meanwhile.
mkfifo "$tmp/never"
exec 9<>"$tmp/never"
until read -r _ <"$tmp/locks.out"; do
	kill -0 $pid 2>/dev/null || fail "it ended: $(cat "$tmp/locks.out")"
	read -r -t 0.05 -u 9 || true
done
exec 9>&-
grep -q "^$(printf %d "$number") " "/proc/$pid/task/$number/syscall" || fail "thread $number does not wait in futex(2)"
"$build/bin/telefork" dump --quiet --kill -o "$tmp/image.tf" $pid
wait $pid 2>/dev/null || true
echo 400 >/proc/sys/kernel/ns_last_pid
"$build/bin/telefork" restore "$tmp/image.tf" >"$tmp/copy.out" 2>"$tmp/copy.err" &
receiver=$!
copy=$(first '^telefork: pid ' "$tmp/copy.err" $receiver | sed 's/^telefork: pid \([0-9]*\).*/\1/')
kill -USR1 "$copy" || fail "the copy is gone"
wait $receiver || fail "the copy failed"
grep -qx 'right 49' "$tmp/copy.out" || fail "it did not say right"
echo "ok: thread $number waits for its lock, as $((copy + 42))"
