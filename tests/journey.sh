#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# journey.sh file|unix|tcp BUILD PROBE [RUNNER]: a probe goes by that route; the receiver is
# BUILD/bin/telefork-pad, both run by RUNNER (qemu-aarch64, ...) if one is given. PROBE may be a script
# for BUILD/luajit.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
route=$1 build=$2 probe=$3
runner ${4+"$4"}
case $probe in
*.lua) program=("$build/luajit" "tests/probes/$probe" "$build/lib/libtelefork.so") ;;
*) program=("$build/probes/$probe") ;;
esac

if [ "$route" = file ]; then
	"${run[@]}" "${program[@]}" "$tmp/image.tf"
	[ "$(stat -c %a "$tmp/image.tf")" = 600 ] || fail "others may read the image"
	[ "$(find "$tmp" -mindepth 1 | wc -l)" = 1 ] || fail "more than the image is there: $(ls "$tmp")"
	said=$("${receive[@]}" "$build/bin/telefork-pad" restore "$tmp/image.tf")
	case $said in ok*) echo "$said" ;; *) fail "$said" ;; esac
	# A damaged byte of memory is found, and nothing is started.
	first=$(readelf -lW "$tmp/image.tf" | awk '$1 == "LOAD" { print $2; exit }')
	printf '\125' | dd of="$tmp/image.tf" bs=1 seek=$((first + 1)) conv=notrunc status=none
	if said=$("${receive[@]}" "$build/bin/telefork-pad" restore "$tmp/image.tf" 2>&1); then
		fail "a damaged image was restored"
	fi
	case $said in *damaged*) exit 0 ;; *) fail "the damage is not named: $said" ;; esac
fi

head -c 24 /dev/urandom | base64 >"$tmp/token"
case $route in
unix) address=unix:$tmp/socket ;;
tcp) address=tcp://127.0.0.1:0 ;;
esac
# An emulated program may need a minute to say what it is.
receiver serve "${receive[@]}" "$build/bin/telefork-pad" serve --handshake-time 200 --token-file "$tmp/token" "$address"
"${run[@]}" "${program[@]}" "$address" --token "$(cat "$tmp/token")"
# A wrong token is refused, by name, and the receiver goes on.
if said=$("${run[@]}" "${program[@]}" "$address" --token wrong 2>&1); then fail "a wrong token was accepted"; fi
case $said in *TELEFORK_E_AUTH*) ;; *) fail "not refused by name: $said" ;; esac
"${run[@]}" "${program[@]}" "$address" --token "$(cat "$tmp/token")"
