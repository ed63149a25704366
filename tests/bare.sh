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
