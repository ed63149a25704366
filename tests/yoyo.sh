#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# yoyo.sh unix|tcp BUILD PROBE [RUNNER]: the yoyo probe goes there and comes back; what it prints over
# there has to be heard here, and nothing of it may be left.
set -eu
route=$1 build=$2 probe=$3 run=${4:-}
receive="$run"
if [ -n "$run" ]; then receive="env QEMU_STACK_SIZE=268435456 $run"; fi
tmp=$(mktemp -d)
pid=
trap 'if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; fi; rm -rf "$tmp"' EXIT
head -c 24 /dev/urandom | base64 >"$tmp/token"
case $route in
unix) address=unix:$tmp/socket ;;
tcp) address=tcp://127.0.0.1:0 ;;
esac
mkfifo "$tmp/address"
# shellcheck disable=SC2086 # the runner is a word or nothing
$receive "$build/bin/telefork-pad" serve --token-file "$tmp/token" "$address" \
	>"$tmp/address" 2>"$tmp/log" &
pid=$!
exec 3<"$tmp/address"
read -r address <&3
# shellcheck disable=SC2086
$run "$build/probes/$probe" "$address" --token "$(cat "$tmp/token")" >"$tmp/out" 2>"$tmp/err" || {
	cat "$tmp/out" "$tmp/err" "$tmp/log"
	exit 1
}
cat "$tmp/out"
grep -q '^a line from there$' "$tmp/out"
grep -q '^a word from there$' "$tmp/err"
