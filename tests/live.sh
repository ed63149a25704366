#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# live.sh TELEBED: what people see of a run on a terminal, and that nobody else sees it.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
telebed=$1
export TELEFORK_CACHE=$tmp/cache TERM=xterm
esc=$(printf '\033')
unset NO_COLOR

# watch COLUMNS: a run on a terminal so wide; $tmp/seen is what is drawn, $tmp/tap standard output
watch() {
	script -qec "stty cols $1; $telebed run $tmp/bad.conf $tmp/good.conf --jobs 1 --out $tmp/out >$tmp/tap" "$tmp/seen" \
		>/dev/null </dev/null && fail "a cell that fails did not fail"
	sed -i '/^Script /d' "$tmp/seen"
	! grep -q "$esc" "$tmp/tap" || fail "escapes on standard output"
	[ "$(grep -c '^ok\|^not ok' "$tmp/tap")" = 2 ] || fail "$(cat "$tmp/tap")"
}

shows() {
	grep -qF -- "$1" "$tmp/seen" || fail "'$1' was not shown: $(cat -v "$tmp/seen")"
}

mkdir "$tmp/cache"
printf 'probe = "hop"; arguments = [ "--nonsense" ];\n' >"$tmp/bad.conf"
# Over a link that takes longer than it takes a picture to be drawn.
printf 'probe = "hop"; build = "pie"; transport = "tcp"; faults = { delay = 300; };\n' >"$tmp/good.conf"
arch=$(uname -m)
cell=good/hop-pie.$arch.native.tcp
printf '{ "%s": 137000 }\n' "$cell" >"$tmp/cache/durations.json"

watch 100
shows "1 of 2, 1 did not hold, 2:1"
shows " s of 137  $cell"
shows "${esc}[31m"
tail -c 20 "$tmp/seen" | grep -qF "${esc}[J" || fail "something is left on the screen"
took=$(sed -n "s|.*\"$cell\": \([0-9]*\).*|\1|p" "$tmp/cache/durations.json")
case ${took:-none} in none | 137000) fail "how long it took is not kept: $(cat "$tmp/cache/durations.json")" ;; esac
! grep -q '"bad/' "$tmp/cache/durations.json" || fail "the time of a failure is kept"

# On a narrow terminal nothing wraps; NO_COLOR is heeded.
export NO_COLOR=1
watch 40
shows "1 of 2"
! grep -qF "${esc}[31m" "$tmp/seen" || fail "colour in spite of NO_COLOR"
sed "s/${esc}\[[A-Z0-9]*//g" "$tmp/seen" | tr '\r' '\n' | grep '.\{40\}' && fail "lines that wrap"

# A terminal that can nothing, and none.
TERM=dumb watch 100
! grep -q "$esc\|left" "$tmp/seen" || fail "a picture on a dumb terminal"
"$telebed" run "$tmp/good.conf" >"$tmp/tap" 2>"$tmp/seen"
[ ! -s "$tmp/seen" ] || fail "something is said on standard error"
