#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# journey.sh file|unix|tcp BUILD PROBE [RUNNER]: a probe goes by that route; the receiver is
# BUILD/bin/telefork-pad, both run by RUNNER (qemu-aarch64, ...) if one is given. PROBE may be a script
# for BUILD/luajit.
set -eu
# Under QEMU user mode the receiver's stack is made larger than any program's, so that the pages which
# the emulator keeps next to it lie in nobody's way.
route=$1 build=$2 probe=$3 run=${4:-}
receive="$run"
if [ -n "$run" ]; then receive="env QEMU_STACK_SIZE=1073741824 $run"; fi
case $probe in
*.lua) program=("$build/luajit" "tests/probes/$probe" "$build/lib/libtelefork.so") ;;
*) program=("$build/probes/$probe") ;;
esac
tmp=$(mktemp -d)
pid=
trap 'if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; fi; rm -rf "$tmp"' EXIT

if [ "$route" = file ]; then
	$run "${program[@]}" "$tmp/image.tf"
	[ "$(stat -c %a "$tmp/image.tf")" = 600 ]
	# Nothing but the image was left.
	[ "$(find "$tmp" -mindepth 1 | wc -l)" = 1 ]
	said=$($receive "$build/bin/telefork-pad" restore "$tmp/image.tf")
	case $said in ok*) echo "$said" ;; *) exit 1 ;; esac
	# A damaged byte of memory is found, and nothing is started.
	first=$(readelf -lW "$tmp/image.tf" | awk '$1 == "LOAD" { print $2; exit }')
	printf '\125' | dd of="$tmp/image.tf" bs=1 seek=$((first + 1)) conv=notrunc status=none
	if out=$($receive "$build/bin/telefork-pad" restore "$tmp/image.tf" 2>&1); then
		echo "a damaged image was restored"
		exit 1
	fi
	case $out in *damaged*) exit 0 ;; esac
	echo "the damage is not named: $out"
	exit 1
fi

head -c 24 /dev/urandom | base64 >"$tmp/token"
case $route in
unix) address=unix:$tmp/socket ;;
tcp) address=tcp://127.0.0.1:0 ;;
esac
mkfifo "$tmp/address"
# shellcheck disable=SC2086 # the runner is a word or nothing
$receive "$build/bin/telefork-pad" serve --token-file "$tmp/token" "$address" >"$tmp/address" &
pid=$!
exec 3<"$tmp/address"
read -r address <&3
$run "${program[@]}" "$address" --token "$(cat "$tmp/token")"
# A wrong token is refused, by name, and the receiver goes on.
if out=$($run "${program[@]}" "$address" --token wrong 2>&1); then
	echo "a wrong token was accepted"
	exit 1
fi
case $out in *TELEFORK_E_AUTH*) ;; *) echo "not refused by name: $out"; exit 1 ;; esac
$run "${program[@]}" "$address" --token "$(cat "$tmp/token")"
