#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# gdb.sh BUILD PROBE [RUNNER]: tools that know no telefork open an image: readelf its headers and
# notes, gdb-multiarch its registers, a backtrace through the probe's functions, and memory. Of an
# image that the program saved itself and, where a witness can look, of the witness's.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$1 probe=$2
runner ${3+"$3"}
telefork=$(dirname "$0")/../build/$(uname -m)/bin/telefork

# has PATTERN FILE
has() {
	grep -q -- "$1" "$2" || fail "no '$1' in: $(cut -c1-200 "$2")"
}

still() {
	"$telefork" inspect "$1" | grep -q ' in stand_still'
}

# The value that inspect shows for a register of thread 1, in gdb's writing.
register() {
	"$telefork" inspect --json "$1" | sed -n "s/^ *\"$2\": \"0*\([0-9a-f]*\)\",*$/0x\1/p" | head -1
}

open_image() {
	local image=$1 pc sp
	readelf -lWn "$image" >"$tmp/readelf" 2>&1
	for what in LOAD NT_PRSTATUS NT_PRPSINFO NT_AUXV NT_FILE NT_FPREGSET TELEFORK; do
		has "$what" "$tmp/readelf"
	done
	gdb-multiarch -nx -batch -ex 'set pagination off' -ex bt -ex 'info registers' \
		-ex 'print/x $pc' -ex 'print/x $sp' -ex 'print changed_byte[1]' \
		-ex 'x/2ub changed_byte' "$build/probes/$probe" "$image" >"$tmp/gdb" 2>&1
	has '^#0 .* stand_still' "$tmp/gdb"
	has '^#1 .* main (' "$tmp/gdb"
	has '^\$3 = 2 ' "$tmp/gdb"
	has ':.1.2$' "$tmp/gdb"
	case $("$telefork" inspect --json "$image" | sed -n 's/^ *"architecture": "\(.*\)",$/\1/p') in
	x86_64) pc=rip sp=rsp ;;
	*) pc=pc sp=sp ;;
	esac
	has "^\$1 = $(register "$image" $pc)\$" "$tmp/gdb"
	has "^\$2 = $(register "$image" $sp)\$" "$tmp/gdb"
	echo "$(basename "$image"): $(grep -c '^#' "$tmp/gdb") frames, $(grep -c LOAD "$tmp/readelf") segments"
}

mkfifo "$tmp/out"
"${run[@]}" "$build/probes/$probe" "$tmp/image" >"$tmp/out" &
read -r _ pid <"$tmp/out"
until [ -e "$tmp/saved" ] && still "$tmp/saved"; do
	rm -f "$tmp/saved"
	kill -USR1 "$pid"
	while [ ! -e "$tmp/image" ]; do sleep 0.01; done
	mv "$tmp/image" "$tmp/saved"
done
open_image "$tmp/saved"
if [ ${#run[@]} = 0 ]; then
	until "$build/bin/telefork-witness" "$pid" "$tmp/seen" >/dev/null && still "$tmp/seen"; do :; done
	open_image "$tmp/seen"
fi
