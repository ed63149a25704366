#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# many.sh BUILD N [RUNNER]: telefork_many() to N receivers in a chain, of which the second is dead and,
# in a second round, another refuses; then one that dies while memory is on its way. Each copy is made
# once, knows its index and has all of its memory; what failed is told by name.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$1 n=$2
runner ${3+"$3"}
echo secret >"$tmp/token"

# serve NUMBER [OPTION...]: a receiver
serve() {
	local i=$1 address
	shift
	receiver "serve$i" "${receive[@]}" "$build/bin/telefork-pad" serve "$@" --token-file "$tmp/token" tcp://127.0.0.1:0
	to[i]=$address servers[i]=$server
}

# go MIB: sends to all; what came of it is in $tmp/out, in $tmp/at the copies
go() {
	rm -rf "$tmp/at"
	mkdir "$tmp/at"
	"${run[@]}" "$build/probes/flock-static" secret "$tmp/at" "$1" "${to[@]}" >"$tmp/out"
}

have_come() { [ "$(ls "$tmp/at")" = "$1" ]; }
# await LIST: these copies, and no others, have come, whole
await() {
	within "not the copies $1" have_come "$1"
	[ "$(cat "$tmp"/at/* | sort -u)" = "0 wrong, peer -1" ] || fail "$(cat "$tmp"/at/*)"
}

declare -a to servers
for i in $(seq "$n"); do serve "$i"; done
all=$(seq "$n" | sort)
go 2
await "$all"
[ "$(grep -c " TELEFORK_E_? [0-9]" "$tmp/out")" = "$n" ] || fail "$(cat "$tmp/out")"

# The second is dead, and the third takes no memory: the others have theirs.
kill -9 "${servers[2]}"
wait "${servers[2]}" 2>/dev/null || true
kill "${servers[3]}"
serve 3 --max-memory 1
go 2
await "$(echo "$all" | grep -vx -e 2 -e 3)"
grep -q "^2 TELEFORK_E_REFUSED 0 .*${to[2]}" "$tmp/out" || fail "$(cat "$tmp/out")"
grep -q "^3 TELEFORK_E_INCOMPATIBLE 0 .*this receiver takes" "$tmp/out" || fail "$(cat "$tmp/out")"

# Who refuses at once cannot be killed while memory is on its way.
if [ "$n" = 4 ]; then
	kill "${servers[3]}"
	serve 3
fi

# The one before the last has its sessions killed while memory is on its way: the first ones are whole,
# and of those behind it it is said that it is not known.
last=$n
address=${to[last - 1]}
build=build/$(uname -m) open_gate 20000000 # that runs here, not under an emulator
to[last - 1]=$door
go 64 &
sender=$!
within "memory is not held back" grep -q held "$tmp/gate.out"
mapfile -t sessions < <(pgrep -P "${servers[last - 1]}")
# shellcheck disable=SC2046 # a list
kill -9 "${sessions[@]}" $(for s in "${sessions[@]}"; do pgrep -P "$s"; done) 2>/dev/null || true
wait "$sender"
await "1"
grep -q "^1 TELEFORK_E_? [0-9]" "$tmp/out" || fail "$(cat "$tmp/out")"
grep -q "^$last TELEFORK_E_[A-Z]* 0 .*not known" "$tmp/out" || fail "$(cat "$tmp/out")"
echo "ok $n receivers"
