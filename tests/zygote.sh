#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# zygote.sh BUILD PROBE self|task|file|words [RUNNER]: a program is kept by a receiver, and copies are
# made of it. They are alone with what is theirs: memory, random bytes, shared memory, locks, threads,
# the position in a file. self: it sends itself; task: it is captured from outside; file: from a saved
# image; words: what is refused, and who ends with whom.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$1 probe=$2 how=$3
runner ${4+"$4"}
named=/dev/shm/brood.$$
tidy() { rm -f "$named"; }
mkdir "$tmp/at"
echo secret >"$tmp/token"

are_there() { [ "$(find "$tmp/at" -name "$2.*" | wc -l)" -ge "$1" ]; }
# await COUNT WHAT: until so many files are there
await() {
	within "there are less than $1 of $2" are_there "$@"
}

serve() {
	receiver serve "${receive[@]}" "$build/bin/telefork-pad" serve "$@" --token-file "$tmp/token" tcp://127.0.0.1:0
}

ask() { "${run[@]}" "$build/bin/telefork" "$@"; }
spawn() { ask spawn --token-file "$tmp/token" "$address" "$@"; }
zygotes() { ask zygotes --token-file "$tmp/token" "$address" "$@"; }

send_itself() {
	said=$("${run[@]}" "$build/probes/$probe" "$tmp/at" "$address" "$1" secret) || fail "$said"
	case $said in "kept "*) ;; *) fail "$said" ;; esac
}

refused() {
	local want=$1 code=0
	shift
	("$@") >"$tmp/said" 2>&1 || code=$?
	[ "$code" != 0 ] || fail "not refused: $*"
	grep -q -- "$want" "$tmp/said" || fail "$*: it says: $(cat "$tmp/said")"
}

start_task() {
	"$build/probes/$probe" "$tmp/at" "$@" &
	task=$!
	await 1 ready
}

# check COUNT FIELDS: every copy has each of these words; indices and random bytes are all different
check() {
	local n=$1
	await "$n" at
	: >"$tmp/at/go"
	await "$n" "done"
	cat "$tmp"/at/done.* >"$tmp/all"
	for word in $2; do
		[ "$(grep -c " $word\( \|\$\)" "$tmp/all")" = "$n" ] || fail "not all have $word: $(cat "$tmp/all")"
	done
	[ "$(grep -o 'random=[0-9a-f]*' "$tmp/all" | sort -u | wc -l)" = "$n" ] ||
		fail "random bytes are shared: $(cat "$tmp/all")"
	if [ -n "${3:-}" ]; then
		[ "$(sed 's/ .*//' "$tmp/all" | sort -V | tr '\n' ' ')" = "$3" ] || fail "indices: $(cat "$tmp/all")"
	fi
}

alone="memory=1 shared=1 lock=1"
# Nothing is known of the advice that a program under QEMU user mode gave.
wiped="wiped=$([ ${#run[@]} != 0 ] && echo 0 || echo 1)"
indices="$(printf 'index=%d ' {1..12})index=21 index=22 "
case $how in
self)
	serve --zygote
	send_itself web
	# So many that others help the zygote.
	[ "$(spawn web -n 12 | sort -u | wc -l)" = 12 ] || fail "not twelve process ids"
	[ "$(spawn web -n 2 --first 21 | sort -u | wc -l)" = 2 ] || fail "not two process ids"
	case $(zygotes) in "web "*" 22 copies made, 14 running: "*) ;; *) fail "$(zygotes)" ;; esac
	check 14 "$alone absent=0 threads=0 file=-1 $wiped" "$indices"
	;;
task)
	serve --zygote
	start_task "$named"
	refused "copies would share it" telefork copy --token-file "$tmp/token" --zygote named --allow pipe "$task" "$address"
	kill "$task"
	rm "$tmp/at/ready.0" "$named"
	start_task
	telefork copy -q --token-file "$tmp/token" --zygote web --allow pipe "$task" "$address"
	spawn web -n 4 -q
	: >"$tmp/at/begin"
	await 5 at
	spawn web -q
	rm "$tmp/at/at.$task"
	: >"$tmp/at/go"
	wait "$task"
	rm "$tmp/at/done.$task"
	check 5 "$alone named=1 absent=5a threads=3 file=69 wiped=1"
	;;
file)
	start_task
	telefork dump -q --allow pipe -o "$tmp/image.tf" "$task"
	: >"$tmp/at/begin"
	telefork restore --copies 3 "$tmp/image.tf" >"$tmp/pids.out" 2>"$tmp/restore.err" &
	restore=$!
	await 4 at
	: >"$tmp/at/go"
	wait "$task" "$restore" || fail "exit code $?"
	rm "$tmp/at/done.$task"
	check 3 "$alone named=1 absent=5a threads=3 file=69 wiped=1"
	;;
words)
	serve --zygote=2 --max-copies 4
	send_itself web
	send_itself other
	refused "zygote web already" send_itself web
	refused "keeps 2 zygotes already" send_itself third
	refused "no zygote nobody here" spawn nobody
	refused "no more than 4 may" spawn web -n 5
	refused "is no name of a zygote" spawn "w/b"
	refused "1 to 4096" spawn web -n 4097
	refused "which NAME" spawn
	refused "wants a token" telefork spawn "$address" web
	refused "no zygotes are kept there" telefork zygotes "$tmp/x"
	zygotes --drop other
	mapfile -t pids < <(spawn web -n 4)
	await 4 at
	case $(zygotes) in "web "*" 4 running: "*) ;; *) fail "$(zygotes)" ;; esac
	kept=$(zygotes | sed 's/.* pid \([0-9]*\),.*/\1/')
	zygotes --drop web
	within "the zygote was dropped and lives" is_gone "$kept"
	refused "no zygote web here" spawn web
	# The younger keeper stays for its copy, and holds what it has inherited.
	send_itself web
	send_itself other
	kept=$(zygotes | sed -n 's/^web .* pid \([0-9]*\),.*/\1/p')
	pids+=("$(spawn other --first 5)")
	await 5 at
	kill -9 "$server"
	for pid in "${pids[@]}"; do kill -0 "$pid" || fail "copy $pid ended with the receiver"; done
	within "the receiver was killed, and its zygote lives" is_gone "$kept"
	check 5 "$alone wiped=1"
	;;
esac
echo "ok $how"
