#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# replay.sh TELEBED same ARCH       a machine of tier icount does the same each time, bit by bit
# replay.sh TELEBED recorded ARCH   a failure there is gone through in gdb, forwards and backwards
# replay.sh TELEBED afterwards ARCH the same with one that ended by a signal, and was not recorded then
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
telebed=$PWD/$1 what=$2 arch=$3

# matches PATTERN: a line of the last output
matches() {
	grep -qE -- "$1" "$tmp/out" || fail "'$1' was not said"
}

same() {
	local cell
	for n in 1 2; do
		expect 0 "$telebed" run icount --filter ".$arch." --seed 7 --jobs 1 --keep --out "$tmp/$n" \
			--json "$tmp/$n.json"
	done
	cmp <("$telebed" report --stable "$tmp/1.json") <("$telebed" report --stable "$tmp/2.json") ||
		fail "another report"
	for cell in "$tmp"/1/icount-*; do
		for file in console.log kernel initramfs; do
			cmp "$cell/A/$file" "$tmp/2/${cell##*/}/A/$file" || fail "${cell##*/}: another $file"
		done
		grep -q '^ok .* registers' "$cell/A/console.log" || fail "$(cat "$cell/A/console.log")"
	done
}

# fails ARGUMENT OPTION...: the probe, in the way of ARGUMENT
fails() {
	local way=$1
	shift
	printf 'probe = "wrong"; arguments = [ "%s" ]; arch = "%s"; tier = "icount"; transport = "file";
		route = [ "A", "A" ]; limit = 300;\n' "$way" "$arch" >"$tmp/$way.conf"
	expect 1 "$telebed" run "$tmp/$way.conf" --out "$tmp/out.$way" "$@"
	folder=$(echo "$tmp/out.$way/$way"-*)
}

recorded() {
	fails loses --record
	matches "not ok: the word: 0x5eee"
	[ -s "$folder/A/recording" ] || fail "no recording"
	cd /
	expect 0 "$telebed" replay --batch "$folder"
	matches "^#0  probe_lost \(format=.*the word"
	matches "^#1  .* in verify \(\)"
	tr '\n' ' ' <"$tmp/out" | grep -qE 'failing point.*<probe_lost>.*one instruction before.*<verify\+[0-9]+>' ||
		fail "not the point, or not the instruction before"
}

# It is the same run.
afterwards() {
	fails dies
	[ ! -e "$folder/A/recording" ] || fail "a recording that nobody asked for"
	expect 0 "$telebed" replay --batch "$folder"
	matches "no recording was made"
	tr '\n' ' ' <"$tmp/out" | grep -qE 'failing point.*<verify\+[0-9]+>.*one instruction before.*<verify\+[0-9]+>' ||
		fail "not the instruction that reads where nothing is"
}

"$what"
echo "ok: $what on $arch"
