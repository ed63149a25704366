#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# peers.sh BUILD ROUNDS MIB...: in a guest, as root: telefork and CRIU save and restore the same program
# (tests/tools/ticker.c), in turns. A line for each figure: what, MiB, who, ms. All files are in memory.
#   runs      until the copy runs, from the command's start
#   stopped   how long the program stands still, and goes on
set -eu
build=$1 rounds=$2
shift 2
tmp=$(mktemp -d /dev/shm/peers.XXXXXX)
telefork=$build/bin/telefork ticker=$build/tests/tools/ticker
PATH=$PATH:/usr/sbin:/sbin
pids=
# end PID...: until their ids are free
end() {
	local p
	for p; do
		while kill -9 "$p" 2>/dev/null; do sleep 0.01; done
	done
}
# shellcheck disable=SC2086 # a list
trap 'end $pids; rm -rf "$tmp"' EXIT

fail() { echo "peers: $*" >&2; exit 1; }

# await FILE PID: until it is there
await() {
	until [ -s "$1" ]; do
		kill -0 "$2" 2>/dev/null || fail "process $2 has ended"
		sleep 0.01
	done
}

# start MIB: the program, in $pid
start() {
	setsid "$ticker" "$tmp" "$1" </dev/null >/dev/null 2>&1 &
	pid=$!
	disown # bash has no word for its end
	pids="$pids $pid"
	await "$tmp/ready.$pid" "$pid"
	look "$pid"
}

# look PID: the longest gap that it has seen, in $gap, and when that ended, in $end
look() {
	rm -f "$tmp/said.$1"
	kill -USR1 "$1" || fail "process $1 has ended"
	await "$tmp/said.$1" "$1"
	read -r gap end <"$tmp/said.$1"
}

# tell WHAT MIB WHO NS
tell() { printf '%s %s %s %d.%06d\n' "$1" "$2" "$3" $(($4 / 1000000)) $(($4 % 1000000)); }

run_copy() {
	start "$1"
	began=$("$ticker" now)
	"$telefork" copy "$pid" "unix:$tmp/socket" >"$tmp/out" 2>&1 || fail "$(cat "$tmp/out")"
	copy=$(sed -n 's/.* copied: pid \([0-9]*\):.*/\1/p' "$tmp/out")
	look "$copy"
	tell runs "$1" telefork-copy $((end - began))
	end "$copy" "$pid"
}

run_files() {
	start "$1"
	began=$("$ticker" now)
	"$telefork" dump -q -o "$tmp/image" "$pid" >"$tmp/out" 2>&1 || fail "$(cat "$tmp/out")"
	"$telefork" restore --detach "$tmp/image" >"$tmp/pid" 2>"$tmp/out" </dev/null || fail "$(cat "$tmp/out")"
	copy=$(tail -n 1 "$tmp/pid")
	look "$copy"
	tell runs "$1" telefork-files $((end - began))
	look "$pid"
	tell stopped "$1" telefork "$gap"
	rm "$tmp/image"
	end "$copy" "$pid"
}

criu_says() { grep -h Error "$1" | head -n 3; }

run_criu() {
	mkdir "$tmp/criu"
	start "$1"
	criu dump --tree "$pid" --images-dir "$tmp/criu" --log-file dump.log --leave-running ||
		fail "$(criu_says "$tmp/criu/dump.log")"
	look "$pid"
	tell stopped "$1" criu "$gap"
	rm -r "$tmp/criu"
	mkdir "$tmp/criu"
	began=$("$ticker" now)
	criu dump --tree "$pid" --images-dir "$tmp/criu" --log-file dump.log ||
		fail "$(criu_says "$tmp/criu/dump.log")"
	end "$pid"
	criu restore --images-dir "$tmp/criu" --log-file restore.log --restore-detached ||
		fail "$(criu_says "$tmp/criu/restore.log")"
	look "$pid"
	tell runs "$1" criu $((end - began))
	rm -r "$tmp/criu"
	end "$pid"
}

tar -C / -xf "build/guest/$(uname -m)/criu.tar"
harness/engines/criu capabilities >&2
"$telefork" serve "unix:$tmp/socket" >"$tmp/address" 2>"$tmp/serve.log" &
pids="$pids $!"
disown
await "$tmp/address" "${pids##* }"
# The first round finds nothing in any cache.
round() {
	run_copy "$1"
	run_files "$1"
	run_criu "$1"
}
for mib; do
	round "$mib" >/dev/null
	for _ in $(seq "$rounds"); do round "$mib"; done
done
