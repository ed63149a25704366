#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# clocks.sh BUILD COUNT: a program one of whose threads reads a clock all the time (tests/probes/busy.c) is moved COUNT
# times between two receivers with other clocks. No clock goes back, wherever in the vDSO that thread is taken.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$(cd "$1" && pwd) count=$2 addresses=()
for ahead in 0 5000; do
	receiver "serve$ahead" unshare --time --fork --kill-child --monotonic "$ahead" --boottime "$ahead" \
		"$build/bin/telefork-pad" serve --insecure tcp://127.0.0.1:0
	addresses+=("$address")
done
begin_ready busy "$build/probes/busy-static"
disown
pids=("$pid")
for i in $(seq "$count"); do
	telefork move --no-precopy "$pid" "${addresses[i % 2]}" >"$tmp/move.out" 2>"$tmp/move.err" ||
		fail "move $i: exit code $?"
	pid=$(sed -n 's/.* moved: pid \([0-9]*\): .*/\1/p' "$tmp/move.out")
	pids=("$pid")
done
kill -USR1 "$pid" || fail "it ended"
said() { grep -qE '^(right|wrong)' "$tmp"/serve*.err; }
within "it says nothing" said
! grep '^wrong' "$tmp"/serve*.err || fail "it is not right"
grep -h '^right' "$tmp"/serve*.err
