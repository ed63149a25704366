#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# kept.sh TELEBED native|system [ARCH]: what a cell leaves that fails on purpose, and that it can be run and
# looked at again with nothing else.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
telebed=$PWD/$1 tier=$2 arch=${3:-$(uname -m)}

# has FOLDER FILE...: it holds them
has() {
	local folder=$1 file
	shift
	for file; do
		[ -s "$folder/$file" ] || fail "no $file in $folder: $(ls "$folder")"
	done
}

# sums FOLDER: those of inputs.txt are right
sums() {
	grep -E '^[0-9a-f]{64}  /' "$1/inputs.txt" >"$tmp/sums" || fail "no sums in $1/inputs.txt"
	expect 0 sha256sum --quiet -c "$tmp/sums"
	says "/probes/wrong-static" "$tmp/sums"
	says "/bin/telefork-pad" "$tmp/sums"
	says "/bin/telebed" "$tmp/sums"
}

# A folder whose name a shell does not like, and a scenario that is gone when it is run again.
mkdir "$tmp/it's kept"
printf 'probe = "wrong"; arch = "%s"; tier = "%s"; transport = [ "tcp", "file" ];\n' \
	"$arch" "$tier" >"$tmp/bad.conf"
expect 1 "$telebed" run "$tmp/bad.conf" --out "$tmp/it's kept"
rm "$tmp/bad.conf"
for transport in tcp file; do
	folder="$tmp/it's kept/bad-wrong-static.$arch.$tier.$transport"
	has "$folder" why.txt said.txt repro.sh bad.conf inputs.txt cell.json program
	says "not ok: the word: 0x5eee, was 0x5eed" "$folder/why.txt"
	sums "$folder"
	[ "$transport" = tcp ] || has "$folder" 1.tf
	[ "$tier" = native ] || has "$folder" A/cmdline B/cmdline
	[ "$tier" = native ] || says "QEMU emulator version" "$folder/inputs.txt"
	[ "$tier" = native ] || ls "$folder"/[AB]/console.log >/dev/null
done

# Both machines saw what went from one to the other; readers of pcap take it.
if [ "$tier" = system ]; then
	folder="$tmp/it's kept/bad-wrong-static.$arch.$tier.tcp"
	for m in A B; do
		has "$folder/$m" link.pcap
		expect 0 tcpdump -nn -r "$folder/$m/link.pcap" tcp
		says "Flags [S]"
		grep -o 'IP 10.77.0.* seq [0-9]*:[0-9]*' "$tmp/out" | sort -u >"$tmp/frames-$m"
		[ -s "$tmp/frames-$m" ] || fail "no data"
	done
	cmp "$tmp/frames-A" "$tmp/frames-B" || fail "A and B did not see the same frames"
fi

# Again, from anywhere, alike.
folder="$tmp/it's kept/bad-wrong-static.$arch.$tier.file"
cd /
expect 1 "$folder/repro.sh"
says "1..1"
cmp <(grep 'not ok' "$folder/why.txt") <(grep 'not ok' "$folder"/again/bad-*/why.txt) ||
	fail "the failure is another one"

# No recording, and why; the image instead.
expect 0 "$telebed" replay --batch "$folder"
says "tier $tier has no recording: what its machines do depends on each other's"
says "its last image instead: $folder/1.tf"
says " in probe_main"
expect 66 "$telebed" replay --batch "${folder%.file}.tcp"
says "no image was taken"
expect 66 "$telebed" replay --batch "$tmp"
says "not the folder of a kept cell"
echo "ok: kept, run again, looked at: $tier of $arch"
