# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# shellcheck disable=SC2154 # build and tmp are the script's
# Read by scripts whose programs must have no descriptor of who started the script: they have a build in $build, and a
# folder in $tmp, with what was said in *.out and *.err.

# Closes all but the standard streams, of this shell or subshell.
close_descriptors() {
	local fd
	for fd in /proc/self/fd/*; do
		fd=${fd##*/}
		if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
	done
}

# state PID: its letter in /proc; nothing if there is no such process
state() { sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null; }
is_gone() { [ -z "$(state "$1")" ] || [ "$(state "$1")" = Z ]; }

telefork() { "$build/bin/telefork" "$@"; }

fail() {
	echo "FAILED: $*" >&2
	tail -n 5 "$tmp"/*.out "$tmp"/*.err >&2 || true
	exit 1
}

# within WHAT COMMAND...: comes true, in a minute at most.
within() {
	local what=$1 until=$((SECONDS + 60))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$until" ] || fail "$what"
		sleep 0.02
	done
}

# slow BYTES: a line of so many a second, to the port in $address, which it replaces; its process is in $pids.
slow() {
	"$build/tests/tools/slow" "${address##*:}" "$1" >"$tmp/slow.out" &
	pids+=("$!")
	within "no slow line" test -s "$tmp/slow.out"
	address=tcp://127.0.0.1:$(cat "$tmp/slow.out")
}

# bytes WORD: how many the last line of a move or copy says so of: "64.7 MiB of memory, 1.0 MiB sent".
bytes() {
	sed -n "s/.*[ ,]\([0-9.]*\) \([KMG]iB\|bytes\) $1.*/\1 \2/p" "$tmp/send.out" | sed \
		's/ bytes//; s/ KiB/*1024/; s/ MiB/*1048576/; s/ GiB/*1073741824/' | bc | cut -d. -f1
}
