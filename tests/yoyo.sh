#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# yoyo.sh unix|tcp BUILD PROBE [RUNNER]: the yoyo probe goes there and comes back; what it prints over
# there has to be heard here, and nothing of it may be left.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
route=$1 build=$2 probe=$3
runner ${4+"$4"}
head -c 24 /dev/urandom | base64 >"$tmp/token"
case $route in
unix) address=unix:$tmp/socket ;;
tcp) address=tcp://127.0.0.1:0 ;;
esac
receiver serve "${receive[@]}" "$build/bin/telefork-pad" serve --token-file "$tmp/token" "$address"
"${run[@]}" "$build/probes/$probe" "$address" --token "$(cat "$tmp/token")" >"$tmp/out" 2>"$tmp/err" || fail "exit code $?"
cat "$tmp/out"
grep -q '^a line from there$' "$tmp/out" || fail "nothing of what it prints is heard"
grep -q '^a word from there$' "$tmp/err" || fail "nothing of its errors is heard"
