#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# many.sh BUILD N [RUNNER]: telefork_many() to N receivers in a chain, of which the second is dead and,
# in a second round, another refuses; then one that dies while memory is on its way. Each copy is made
# once, knows its index and has all of its memory; what failed is told by name.
set -eu
build=$1 n=$2 run=${3:-}
tmp=$(mktemp -d)
pids=
# shellcheck disable=SC2086 # a list
trap 'kill $pids 2>/dev/null || true; rm -rf "$tmp"' EXIT
echo secret >"$tmp/token"
fail() { echo "$*"; exit 1; }

# receiver NUMBER [OPTION...]: starts one
receiver() {
	local i=$1
	shift
	mkfifo "$tmp/address$i"
	# shellcheck disable=SC2086 # the runner is a word or nothing
	QEMU_STACK_SIZE=1073741824 $run "$build/bin/telefork-pad" serve "$@" --token-file "$tmp/token" \
		tcp://127.0.0.1:0 >"$tmp/address$i" 2>"$tmp/log$i" &
	pid[i]=$!
	pids="$pids $!"
	exec {fd}<"$tmp/address$i"
	read -r "address[$i]" <&"$fd"
}

# go MIB: sends to all; what came of it is in $tmp/said, in $tmp/at the copies
go() {
	rm -rf "$tmp/at"
	mkdir "$tmp/at"
	# shellcheck disable=SC2086
	$run "$build/probes/flock-static" secret "$tmp/at" "$1" "${address[@]}" >"$tmp/said"
}

# await LIST: these copies, and no others, have come, whole
await() {
	local k=0
	while [ "$(ls "$tmp/at")" != "$1" ]; do
		k=$((k + 1))
		[ $k -lt 1500 ] || fail "copies: $(ls "$tmp/at"); $(cat "$tmp/said" "$tmp"/log*)"
		sleep 0.02
	done
	[ "$(cat "$tmp"/at/* | sort -u)" = "0 wrong, peer -1" ] || fail "$(cat "$tmp"/at/*)"
}

declare -a address pid
for i in $(seq "$n"); do receiver "$i"; done
all=$(seq "$n" | sort)
go 2
await "$all"
[ "$(grep -c " TELEFORK_E_? [0-9]" "$tmp/said")" = "$n" ] || fail "$(cat "$tmp/said")"

# The second is dead, and the third takes no memory: the others have theirs.
kill -9 "${pid[2]}"
wait "${pid[2]}" 2>/dev/null || true
kill "${pid[3]}"
rm "$tmp/address3"
receiver 3 --max-memory 1
go 2
await "$(echo "$all" | grep -vx -e 2 -e 3)"
grep -q "^2 TELEFORK_E_REFUSED 0 .*${address[2]}" "$tmp/said" || fail "$(cat "$tmp/said")"
grep -q "^3 TELEFORK_E_INCOMPATIBLE 0 .*this receiver takes" "$tmp/said" || fail "$(cat "$tmp/said")"

# Who refuses at once cannot be killed while memory is on its way.
if [ "$n" = 4 ]; then
	kill "${pid[3]}"
	rm "$tmp/address3"
	receiver 3
fi

# The one before the last has its sessions killed while memory is on its way: the first ones are whole,
# and of those behind it it is said that it is not known.
go "$([ -n "$run" ] && echo 64 || echo 256)" &
sender=$!
last=$n k=0
until pgrep -P "${pid[last - 1]}" >"$tmp/sessions"; do
	k=$((k + 1))
	[ $k -lt 1500 ] || fail "no session came"
	sleep 0.02
done
mapfile -t sessions <"$tmp/sessions"
# shellcheck disable=SC2046 # a list
kill -9 "${sessions[@]}" $(for s in "${sessions[@]}"; do pgrep -P "$s"; done) 2>/dev/null || true
wait "$sender"
await "1"
grep -q "^1 TELEFORK_E_? [0-9]" "$tmp/said" || fail "$(cat "$tmp/said")"
grep -q "^$last TELEFORK_E_[A-Z]* 0 .*not known" "$tmp/said" || fail "$(cat "$tmp/said")"
echo "ok $n receivers"
