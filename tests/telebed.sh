#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# telebed.sh TELEBED words          what it says to scenarios that it does not understand
# telebed.sh TELEBED matrix         parts of a matrix, seeds, repetitions, rows of one's own; what an end leaves
# telebed.sh TELEBED machines ARCH  machines that die, hang or do not start; nothing outlives telebed
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
telebed=$1 what=$2 arch=${3:-}
pid=

# refuses TEXT SCENARIO
refuses() {
	printf '%s\n' "$2" >"$tmp/wrong.conf"
	expect 64 "$telebed" run "$tmp/wrong.conf"
	says "$tmp/wrong.conf:$1"
}

words() {
	refuses "1: expected probe" 'help = "nothing to move";'
	refuses "2: 'colour' is none of help, set, probe" 'probe = "hop";
colour = "red";'
	refuses "2: tier: 'kvm' is none of native, user, system, icount" 'probe = "hop";
tier = [ "user", "kvm" ];'
	refuses "1: route: expected a string or a list" 'probe = "hop"; route = 7;'
	refuses "2: build: expected strings, element 2 is none" 'probe = "hop";
build = ( "pie", 3 );'
	refuses "1: route: 'C' is no name" 'probe = "hop"; route = [ "A", "C" ]; machines = ( { name = "A"; } );'
	refuses "2: memory: expected a number from 16" 'probe = "hop"; machines = ( { name = "A"; },
{ name = "B"; memory = "much"; } );'
	refuses "1: vector_length: expected 16, 32" 'probe = "hop"; machines = ( { name = "A"; vector_length = 48; } );'
	refuses "1: limit: expected a number from 1" 'probe = "hop"; limit = 0;'
	refuses "2: syntax error" 'probe = "hop";
route "A"'
	refuses "1: checks: a witness in tier user" 'probe = "hop"; tier = "user"; checks = "witness";'
	refuses "1: refused: expected program" 'probe = "hop"; refused = "no";'
	refuses "1: refused: expected a route of two" 'program = "tests/programs/primes.py"; refused = "no"; route = [ "A", "B", "A" ];'
	refuses "2: outside: of a probe, expected one word" 'probe = "hop";
outside = [ "copy", "move" ];'
	refuses "1: mode: expected program" 'probe = "hop"; mode = "lazy";'
	refuses "1: mode: of a copy, expected usual or lazy" 'probe = "crew"; outside = "copy"; mode = "precopy";'
	refuses "1: program: goes without probe" 'program = "tests/programs/primes.py"; build = "pie";'
	refuses "1: kernel: '7' is none of 6.1, 6.12, newest, 16k" 'probe = "hop"; machines = ( { name = "A"; kernel = "7"; } );'
	refuses "2: faults: 'lose' is none of loss," 'probe = "hop";
faults = { lose = 1; };'
	refuses "1: loss: expected a number from 0 to 1000" 'probe = "hop"; faults = { loss = "much"; };'
	refuses "1: strike: 'hit' is none of none, cut" 'probe = "hop"; faults = { strike = [ "hit" ]; };'
	refuses "1: faults: strike: expected program" 'probe = "hop"; faults = { strike = [ "cut" ]; };'
	expect 64 "$telebed" torture --tier hard
	says "expected native, user or system"
	expect 64 "$telebed" torture --tier user --arch "$([ "$(uname -m)" = x86_64 ] && echo aarch64 || echo x86_64)"
	says "expected --tier system"
	expect 64 "$telebed" torture --only luck
	says "no such fault"
	refuses "1: tier icount: expected a probe, no checks" 'probe = "hop"; tier = "icount";'
	expect 64 "$telebed" torture --only lose-sender
	says "none of these can be done in tier native"
	expect 64 "$telebed" run nowhere
	says "nowhere.conf: no such scenario"
	expect 64 "$telebed" run host --filter nothing-like-this
	says "no cell has a name with nothing-like-this"
	expect 64 "$telebed" fly
	expect 0 "$telebed" --version
	expect 0 "$telebed" list --cells host
	says "host/hop-static.x86_64.user.file  A -> B"

	# A probe that fails is a failure, and what it leaves is complete.
	printf 'probe = "registers"; arguments = [ "--nonsense" ];\n' >"$tmp/bad.conf"
	expect 1 "$telebed" run "$tmp/bad.conf" --out "$tmp/kept" --json "$tmp/json"
	says "registers-static on A ended with exit code 64"
	for f in why.txt said.txt repro.sh; do
		[ -s "$(echo "$tmp"/kept/bad-*/$f)" ] || fail "no $f was left"
	done
	grep -q '"verdict": "failed"' "$tmp/json" || fail "$(cat "$tmp/json")"
	sh -c "cd $tmp && $(echo "$tmp"/kept/bad-*/repro.sh)" >/dev/null && fail "repro.sh did not fail"
	# One that holds leaves nothing.
	printf 'probe = "hop";\n' >"$tmp/good.conf"
	expect 0 "$telebed" run "$tmp/good.conf" --out "$tmp/gone"
	[ ! -e "$tmp/gone" ] || fail "left: $(find "$tmp/gone")"
}

# names FILE: the cells of a run, in their order
names() {
	sed -n 's/^ok [0-9]* - \([^ ]*\) .*/\1/p' "$1"
}

# ends SIGNAL: a telebed that gets it, with programs under way, leaves no process and no file
ends() {
	printf 'probe = "registers"; arguments = [ "--wait" ]; tier = "user";\n' >"$tmp/user.conf"
	env --default-signal=INT "$telebed" run "$tmp/user.conf" --out "$tmp/ended" >"$tmp/live" 2>&1 &
	pid=$!
	timeout 200 sh -c 'until pgrep -f "$1/machines/.*registers-static"; do sleep 0.1; done' sh "$tmp/ended" \
		>"$tmp/pids" || fail "no program below telebed"
	kill "-$1" "$pid"
	while read -r p; do gone "$p"; done <"$tmp/pids"
	pid=
	vanishes "$tmp/ended"
}

matrix() {
	# The parts are the whole.
	"$telebed" list --cells host --filter user | sort >"$tmp/whole"
	for i in 1 2 3 4 5; do
		"$telebed" list --cells host --filter user --shard $i/5 >"$tmp/part"
		[ -s "$tmp/part" ] || fail "part $i is empty"
		cat "$tmp/part"
	done | sort >"$tmp/parts"
	cmp "$tmp/whole" "$tmp/parts" || fail "the parts are not the whole"
	expect 64 "$telebed" list host --shard 6/5
	says "expected K/N"

	# One seed, one order and one set of cells, with one set of machines or several.
	expect 0 "$telebed" run host --filter native --seed 77 --jobs 1 --json "$tmp/one.json"
	says "# seed 77"
	names "$tmp/out" >"$tmp/one"
	expect 0 "$telebed" run host --filter native --seed 77 --jobs 3 --json "$tmp/other.json"
	names "$tmp/out" | cmp - "$tmp/one" || fail "another order"
	[ "$(wc -l <"$tmp/one")" = 9 ] || fail "$(cat "$tmp/one")"
	for f in one other; do
		# Names of cells; phases stand by time.
		grep -E '"(name": "[^"]*/|(seed|verdict|engine)")' "$tmp/$f.json" >"$tmp/$f.words"
		grep -E '"(name|seed|verdict|engine)"' "$tmp/$f.json" | sort >"$tmp/$f.all"
	done
	cmp "$tmp/one.words" "$tmp/other.words" || fail "another report"
	cmp "$tmp/one.all" "$tmp/other.all" || fail "a report of other things"

	# Again and again, until one does not hold.
	expect 0 "$telebed" run host --filter native.file --repeat 2
	says "1..6"
	says "again 1"
	printf 'probe = "registers"; arguments = [ "--nonsense" ];\n' >"$tmp/bad.conf"
	expect 1 "$telebed" run "$tmp/bad.conf" --until-fail --jobs 1 --out "$tmp/failed"
	says "not ok 1"
	grep -q '^1\.\.1$' "$tmp/out" || fail "no plan of one"

	# Rows of one's own; what cannot be had here is skipped, and not for a success.
	cat >"$tmp/own.conf" <<-END
		machines = (
			{ name = "mine"; machine = "x86_64-user"; cpu = "Nehalem"; help = "an old one"; },
			{ name = "odd"; machine = "aarch64-user"; qemu = "qemu-of-nobody"; },
			{ name = "aarch64-a57"; machine = "aarch64-user"; help = "not the one that comes along"; }
		);
	END
	expect 0 "$telebed" machines --machines "$tmp/own.conf" mine odd
	says "x86_64 user, cpu Nehalem: an old one"
	says "no qemu-of-nobody"
	expect 0 "$telebed" machines --machines "$tmp/own.conf" aarch64-a57
	says "aarch64 user: not the one"
	printf 'probe = "hop"; machine = [ "mine", "odd", "mine -> x86_64-user" ];\n' >"$tmp/rows.conf"
	expect 0 "$telebed" run "$tmp/rows.conf" --machines "$tmp/own.conf"
	says "rows/hop-static.mine-to-x86_64-user.tcp A -> B:"
	says "rows/hop-static.odd.tcp A -> B # SKIP A: no qemu-of-nobody"
	says "2 passed, 0 failed, 0 broken, 1 skipped"
	expect 69 "$telebed" run "$tmp/rows.conf" --machines "$tmp/own.conf" --no-skip --out "$tmp/strict"
	expect 69 "$telebed" run "$tmp/rows.conf" --machines "$tmp/own.conf" --filter odd --out "$tmp/strict"
	says "no cell could be run here"
	refuses "1: machine: 'mine' is no row" 'probe = "hop"; machine = "mine";'
	refuses "1: machine: goes without arch" 'probe = "hop"; machine = "x86_64"; tier = "user";'
	for wrong in '2: machine: '\''colour'\'' is none|{ name = "a"; machine = "x86_64";
colour = "red"; }' '1: machine a: expected arch and tier|{ name = "a"; }' \
		'1: kernel: a file of one|{ name = "a"; machine = "x86_64"; kernel = "/vmlinuz"; }' \
		'1: cores: expected a number|{ name = "a"; machine = "x86_64"; cores = 100; }' \
		'1: page_size: expected 4|{ name = "a"; machine = "x86_64"; page_size = 12; }'; do
		printf 'machines = ( %s );\n' "${wrong#*|}" >"$tmp/rows.wrong"
		expect 64 "$telebed" machines --machines "$tmp/rows.wrong"
		says "$tmp/rows.wrong:${wrong%%|*}"
	done

	ends INT
	ends KILL
}

# qemu_of PID: the processes of QEMU that live below it
qemu_of() {
	local child
	local -a children=()
	{ read -r -a children <"/proc/$1/task/$1/children"; } 2>/dev/null || true
	for child in "${children[@]}"; do
		case $(tr '\0' ' ' <"/proc/$child/cmdline" 2>/dev/null) in
		qemu-system-*) echo "$child" ;;
		*) qemu_of "$child" ;;
		esac
	done
}

# Two machines, in qemus. The kernel leaves out children of who is making or reaping others (proc(5)).
find_two() {
	mapfile -t qemus < <(qemu_of "$pid")
	[ ${#qemus[@]} = 2 ]
}

find_one() { qemu=$(qemu_of "$pid") && [ -n "$qemu" ]; }

# wait_line TEXT: until the file $tmp/live has it
wait_line() {
	timeout 120 sh -c 'until grep -qF -- "$1" "$2"; do sleep 0.1; done' sh "$1" "$tmp/live" ||
		fail "'$1' was not said: $(cat "$tmp/live")"
}

# gone PID: it ends, soon
gone() {
	timeout 200 tail --pid="$1" -f /dev/null || fail "process $1 outlives telebed"
}

# vanishes PATH: soon
vanishes() {
	timeout 200 sh -c 'while [ -e "$1" ]; do sleep 0.1; done' sh "$1" || fail "left: $(find "$1")"
}

# start COMMAND...: in the background, output to $tmp/live
start() {
	: >"$tmp/live" # whoever waits for a line must not find the last one's
	"$@" >"$tmp/live" 2>&1 &
	pid=$!
}

# A machine that dies, one that hangs: told with its own words, and the next cell gets a new one.
loses() {
	local signal=$1 text=$2 code=0 qemu
	printf 'probe = "registers"; arguments = [ "--wait" ]; arch = "%s"; tier = "system"; limit = %s;\n' \
		"$arch" "$3" >"$tmp/stands.conf"
	start "$telebed" run "$tmp/stands.conf" guests --jobs 1 --filter "-static.$arch." --out "$tmp/lost$signal"
	wait_line "B: $arch machine"
	within "not two machines below telebed" find_two
	for qemu in "${qemus[@]}"; do # that of B
		! tr '\0' '\n' <"/proc/$qemu/cmdline" | grep -q "/2-system-" || break
	done
	kill "-$signal" "$qemu"
	wait "$pid" || code=$?
	pid=
	cp "$tmp/live" "$tmp/out"
	[ "$code" = 69 ] || fail "exit code $code, not 69"
	says "not ok 1 - stands/registers-static.$arch"
	says "$text"
	grep -q "^ok 2 - guests/hop-static.$arch" "$tmp/out" || fail "no new machine for the next cell"
	[ -s "$(echo "$tmp/lost$signal"/stands-*/B/cmdline)" ] || fail "no command line was left"
	gone "$qemu"
}

machines() {
	local code folder qemu left
	local -a qemus
	# Output and exit code of a command.
	expect 64 "$telebed" exec "$arch" -- "build/$arch/probes/registers-static"
	says "usage: registers ADDRESS"
	expect 69 "$telebed" exec "$arch" -- /nowhere/program
	says "No such file"

	# A shell with piped input, and files in and out while it is there.
	mkfifo "$tmp/in"
	"$telebed" shell "$arch" <"$tmp/in" >"$tmp/live" 2>&1 &
	pid=$!
	exec 9>"$tmp/in"
	echo 'echo up; uname -m' >&9
	wait_line "$arch"
	echo "from here" >"$tmp/file"
	expect 0 "$telebed" cp "$tmp/file" "$arch:folder/"
	expect 0 "$telebed" cp "$arch:/tmp/folder/file" "$tmp/back"
	cmp "$tmp/file" "$tmp/back"
	expect 69 "$telebed" cp "$arch:nowhere" "$tmp/back"
	says "No such file"
	echo 'cat folder/file; exit 7' >&9
	exec 9>&-
	code=0
	wait "$pid" || code=$?
	pid=
	[ "$code" = 7 ] || fail "the shell's exit code is $code, not 7"
	wait_line "from here"
	expect 64 "$telebed" cp "$arch:/tmp/folder/file" "$tmp/back"
	says "no such machine runs"

	# Nothing outlives a telebed that is killed: neither QEMU nor its folder nor a socket.
	start "$telebed" exec "$arch" -- "build/$arch/probes/registers-static" /tmp/i.tf --wait
	wait_line holding
	within "no QEMU below telebed" find_one
	folder=$(tr '\0' '\n' <"/proc/$qemu/cmdline" | grep -o '/tmp/telebed\.[A-Za-z0-9]*' | head -1)
	[ -S "$folder/link" ] || fail "no link in $folder"
	kill -9 "$pid"
	gone "$qemu"
	vanishes "$folder"
	# A run that is interrupted, in a folder in which somebody else has something.
	printf 'probe = "registers"; arguments = [ "--wait" ]; arch = "%s"; tier = "system";\n' "$arch" >"$tmp/long.conf"
	mkdir -p "$tmp/run/mine"
	echo mine >"$tmp/run/mine/file"
	start env --default-signal=INT "$telebed" run "$tmp/long.conf" --out "$tmp/run"
	wait_line "B: $arch machine"
	within "not two machines below telebed" find_two
	kill -INT "$pid"
	for qemu in "${qemus[@]}"; do gone "$qemu"; done
	for left in machines link "long-registers-static.$arch.system.tcp"; do vanishes "$tmp/run/$left"; done
	[ "$(find "$tmp/run" | sort | tr '\n' ' ')" = "$tmp/run $tmp/run/mine $tmp/run/mine/file " ] ||
		fail "$(find "$tmp/run")"
	printf 'probe = "registers"; arguments = [ "--wait" ]; tier = "user"; arch = "%s";\n' "$arch" \
		>"$tmp/user.conf"
	start "$telebed" run "$tmp/user.conf" --out "$tmp/user"
	timeout 200 sh -c 'until pgrep -f "$1/machines/.*registers-static"; do sleep 0.1; done' sh "$tmp/user" \
		>"$tmp/pids" || fail "no program below telebed"
	kill -9 "$pid"
	while read -r p; do gone "$p"; done <"$tmp/pids"
	pid=

	loses KILL "killed by signal 9" 60
	loses STOP "does not answer in time" 12

	# A QEMU that does not start is told with its own words.
	cat >"$tmp/qemu-system-$arch" <<-END
		#!/bin/sh
		if [ "\$1" = --version ]; then echo "no QEMU at all"; exit 0; fi
		echo "not in the mood for $arch" >&2
		exit 1
	END
	chmod +x "$tmp/qemu-system-$arch"
	expect 69 env PATH="$tmp:$PATH" TELEFORK_CACHE="$tmp/cache" "$telebed" run guests --filter ".$arch." \
		--out "$tmp/moody"
	says "0 passed, 0 failed, 6 broken"
	says "not in the mood for $arch"
}

"$what"
