#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# screenshots.sh TELEBED FOLDER: the page of a report in a real browser. What it draws of 1,000 cells is
# checked in its DOM; pictures, wide and narrow, light and dark, go to FOLDER, to be looked at.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
telebed=$1 folder=$2
mkdir -p "$folder"

# browse WIDTH HEIGHT light|dark OPTION... URL
browse() {
	local size=$1,$2 scheme=1
	[ "$3" = light ] || scheme=0
	shift 3
	timeout 120 chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$tmp/profile" \
		--window-size="$size" --blink-settings=preferredColorScheme=$scheme --virtual-time-budget=5000 \
		--enable-logging=stderr "$@" 2>"$tmp/log" || fail "chromium: $(tail -5 "$tmp/log")"
	! grep 'CONSOLE' "$tmp/log" || fail "the page complained"
}

# dom HASH: the page as its script has left it
dom() {
	browse 1400 1000 light --dump-dom "file://$tmp/page.html$1" >"$tmp/dom"
}

# drawn N PATTERN: so many times in the DOM
drawn() {
	local n
	sed 's:<script[^>]*>.*</script>::; /^<script>$/,/^<\/script>$/d; /^<style>$/,/^<\/style>$/d' "$tmp/dom" | grep -o -e "$2" >"$tmp/found" || true
	n=$(wc -l <"$tmp/found")
	[ "$n" = "$1" ] || fail "$2 was drawn $n times, not $1 times"
}

python3 tests/tools/sample_report.py 1000 >"$tmp/run.json"
cat >"$tmp/mutants.json" <<-'END'
	{ "seed": 4, "arches": [ { "arch": "x86_64", "caught": 49, "total": 50 } ],
	  "states": [ { "arch": "x86_64", "state": "general registers", "caught": 40, "total": 40 },
		{ "arch": "x86_64", "state": "signal mask", "caught": 9, "total": 10 } ],
	  "mutants": [ { "name": "sigmask-drop", "arch": "x86_64", "state": "signal mask", "verdict": "survived" } ] }
END
echo '{ "seed": 4, "verdict": "ok", "seconds": 1200, "moves": 401, "doubled": 0, "faults": { "cut": 20 } }' >"$tmp/torture.json"
"$telebed" report --run "$tmp/run.json" --mutants "$tmp/mutants.json" --torture "$tmp/torture.json" -o "$tmp/page.html"
failed=$(gojq -r '[.cells[] | select(.verdict == "failed" and .engine == "outside").name][0] | @uri' "$tmp/run.json")
broken=$(gojq -r '[.cells[] | select(.verdict == "broken").name][0] | @uri' "$tmp/run.json")

dom ""
drawn 1000 'data-cell="'
drawn "$(gojq .failed "$tmp/run.json")" 'class="cell failed" tabindex'
drawn 1 'tabindex="0" type="button" data-cell'
drawn 1 '1 survivor'
drawn 5 '<a href="#[a-z]*">'
dom "#$failed"
drawn 1 'aria-current="true"'
drawn 3 '<svg class="time"\|id="times"'
drawn 2 '<mark>88</mark>\|<mark>80</mark>'
drawn 4 'class="dump"'
dom "#$broken"
drawn 1 "&lt;script&gt;alert('text')&lt;/script&gt;"
for scheme in light dark; do
	browse 1400 1100 $scheme --screenshot="$folder/matrix-wide-$scheme.png" "file://$tmp/page.html"
	browse 1400 1700 $scheme --screenshot="$folder/cell-wide-$scheme.png" "file://$tmp/page.html#$failed"
	browse 400 1000 $scheme --screenshot="$folder/matrix-narrow-$scheme.png" "file://$tmp/page.html"
	browse 400 2400 $scheme --screenshot="$folder/cell-narrow-$scheme.png" "file://$tmp/page.html#$failed"
done
ls "$folder"
