#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# report.sh TELEBED: what telebed writes about a run. JSON as its schema says, the same again in a second
# run but for what the schema excuses; JUnit's XML; the page, as far as can be told without a browser
# (make report-screenshots has one); hostile text harms none of them.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
telebed=$1

# same ACTUAL EXPECTED WHAT
same() {
	if [ -z "$1" ] || [ "$1" != "$2" ]; then fail "$3: '$1', not '$2'"; fi
}

# valid FILE: as docs/report.schema.json has it
valid() {
	python3 - "$1" <<-'END' || fail "$1 is not as its schema says"
		import json, sys, jsonschema
		schema = json.load(open("docs/report.schema.json"))
		jsonschema.Draft202012Validator.check_schema(schema)
		bad = list(jsonschema.Draft202012Validator(schema).iter_errors(json.load(open(sys.argv[1]))))
		for e in bad[:5]:
		    print(e.json_path, e.message[:200])
		sys.exit(bool(bad))
	END
}

# element TAG FILE: what stands between the lines of <TAG> and </TAG>, without <TAG>'s own end of line
element() {
	sed -n "/^<$1>\$/,/^<\/$1>\$/{/^<\/\?$1>\$/d;p}" "$2"
}

# hash TAG FILE: of that text, as a policy names it
hash() {
	local hex
	hex=$({ echo && element "$1" "$2"; } | sha256sum | cut -c 1-64)
	# shellcheck disable=SC2059,SC2001 # the format is the bytes
	printf "$(sed 's/../\\x&/g' <<<"$hex")" | base64
}

# page FILE: whole, alone, and its own policy lets it run
page() {
	local n id
	same "$(head -1 "$1")" "<!doctype html>" "first line"
	same "$(tail -1 "$1")" "</html>" "last line"
	for n in script style; do
		same "$(grep -o "<$n\\b" "$1" | wc -l)" "$(grep -o "</$n>" "$1" | wc -l)" "ends of $n"
		grep -qF "$n-src 'sha256-$(hash $n "$1")'" "$1" || fail "$1: its policy is not that of its $n"
	done
	same "$(grep -c '<script' "$1")" 2 "scripts"
	! grep -q '@[A-Z]*@\|^@page' "$1" || fail "$1: $(grep -o '@[A-Z]*@' "$1") was not filled in"
	! sed 's:http.//www.w3.org/2000/svg::' "$1" | grep -v '^<script type="application/json"' |
		grep -n 'https\?://\|\bsrc=\|@import\|url(\|<link\|<img\|innerHTML\|document\.write' ||
		fail "$1 needs something else, or takes text for markup"
	grep -o 'byId("[a-z]*")' "$1" | sort -u | tr -dc 'a-z\n' | sed 's/^byd//; s/^by//' >"$tmp/ids"
	while read -r id; do
		grep -q "id=\"$id\"\|id: \"$id\"" "$1" || fail "$1: no element $id"
	done <"$tmp/ids"
	[ "$(wc -l <"$tmp/ids")" -gt 8 ] || fail "no elements were looked for"
}

# data FILE: the document in a page
data() {
	sed -n 's:^<script type="application/json" id="document">\(.*\)</script>$:\1:p' "$1" >"$tmp/data"
	[ -s "$tmp/data" ] || fail "$1 has no document"
	gojq . "$tmp/data"
}

# A run that fails in one cell, twice.
cat >"$tmp/mixed.conf" <<-'END'
	probe = "registers";
	transport = [ "file", "unix" ];
	checks = [ "verdict", "witness" ];
END
odd=$(printf 'a <b>&c\377\001')
printf 'probe = "hop"; arguments = [ "--nonsense" ];\n' >"$tmp/$odd.conf"
echo 'program = "tests/programs/digits.bc";' >"$tmp/taken.conf"
for i in 1 2; do
	expect 1 "$telebed" run "$tmp/mixed.conf" "$tmp/taken.conf" "$tmp/$odd.conf" --seed 5 --out "$tmp/out$i" \
		--report "$tmp/$i.json" --report "$tmp/$i.xml" --report "$tmp/$i.html"
	valid "$tmp/$i.json"
	"$telebed" report --run "$tmp/$i.json" --stable >"$tmp/$i.stable"
	page "$tmp/$i.html"
done
diff "$tmp/1.stable" "$tmp/2.stable" || fail "two runs differ"
same "$(gojq -r '[.planned, .passed, .failed, .broken, (.cells | length)] | join(" ")' "$tmp/1.json")" "4 3 1 0 4" counts
same "$(gojq '[.cells[].phases[] | select(.machine == "B" and .name == "restore")] | length' "$tmp/1.json")" 3 restores
same "$(gojq -r '[.cells[] | select(.engine == "outside").phases | sort_by(.begin_ms)[] | select(.machine == "A").name] | join(" ")' \
	"$tmp/1.json")" "check connect freeze description pages answer commit landing" "phases of a move"
same "$(gojq -r '[.cells[].stands[].instruction != null] | all' "$tmp/1.json")" true instructions
[ "$(gojq '[.cells[].phases[] | .begin_ms, .ms] | min' "$tmp/1.json" | cut -d. -f1)" -ge 0 ] || fail "a phase begins early"
for member in ms phases.begin_ms folder machines.kernel; do
	! grep -q "\"${member##*.}\"" "$tmp/1.stable" || fail "$member is in what stays the same"
done
grep -q '"verdict": "failed"' "$tmp/1.stable" || fail "verdicts are missing"
same "$("$telebed" report --schema)" "$(cat docs/report.schema.json)" "the schema"

# The document makes the same files again, and is in the page.
expect 0 "$telebed" report "$tmp/1.json" -o "$tmp/again.json" -o "$tmp/again.html" -o "$tmp/again.xml"
cmp "$tmp/1.json" "$tmp/again.json" && cmp "$tmp/1.html" "$tmp/again.html" && cmp "$tmp/1.xml" "$tmp/again.xml"
same "$(data "$tmp/1.html")" "$(gojq . "$tmp/1.json")" "the page's document"
xmllint --noout --schema tests/junit.xsd "$tmp"/[12].xml >"$tmp/out" 2>&1 || fail "$(cat "$tmp/out")"
same "$(xmllint --xpath 'string(/testsuites/testsuite[starts-with(@name, "a <b>&c")]/testcase/failure/@type)' "$tmp/1.xml")" failed JUnit

# Shards become one; what was not run is an error for whoever reads JUnit.
gojq '.cells |= .[:1]' "$tmp/1.json" >"$tmp/part1.json"
gojq '.cells |= .[1:] | .planned = 5 | .runs[0].bail = "no machine"' "$tmp/1.json" >"$tmp/part2.json"
expect 0 "$telebed" report --run "$tmp/part2.json" --run "$tmp/part1.json" -o "$tmp/both.json" -o "$tmp/both.xml"
same "$(gojq -r '[.planned, .passed, .failed, (.runs | length)] | join(" ")' "$tmp/both.json")" "9 3 1 2" shards
same "$(gojq -c '[.cells[].name]' "$tmp/both.json")" "$(gojq -c '[.cells[].name]' "$tmp/1.json")" "order of cells"
valid "$tmp/both.json"
xmllint --noout --schema tests/junit.xsd "$tmp/both.xml" >"$tmp/out" 2>&1 || fail "$(cat "$tmp/out")"
same "$(xmllint --xpath 'string(//error/@message)' "$tmp/both.xml")" "no machine" "cells that were not run"

# Losses, engines that cannot, peers that fail: a report that was never run has all of it.
python3 tests/tools/sample_report.py 400 >"$tmp/sample.json"
valid "$tmp/sample.json"
expect 0 "$telebed" report "$tmp/sample.json" -o "$tmp/sample.xml" -o "$tmp/sample.html"
same "$(gojq -c '[.passed, .failed, .broken, .skipped, .unable]' "$tmp/sample.json")" \
	"$(gojq -c '[.passed, .failed, .broken, .skipped, .unable]' <("$telebed" report "$tmp/sample.json" "$tmp/part1.json") |
		gojq -c '.[1] -= 1')" "counts"
xmllint --noout --schema tests/junit.xsd "$tmp/sample.xml" >"$tmp/out" 2>&1 || fail "$(cat "$tmp/out")"
same "$(xmllint --xpath 'count(//skipped)' "$tmp/sample.xml")" \
	"$(gojq '[.cells[] | select(.verdict == "skipped" or (.peer and .verdict != "ok"))] | length' "$tmp/sample.json")" "skipped cells"
same "$(xmllint --xpath 'count(//failure)' "$tmp/sample.xml")" "$(gojq .failed "$tmp/sample.json")" "failures"
page "$tmp/sample.html"

# Whatever a program says is text.
gojq '.cells[0].why = "</script><script>alert(1)</script><!-- \u2028 ]]> \u0001 \uffff \u009f &amp; \u00e9"
	| .cells[0].said = "<img src=x onerror=alert(1)>" | .cells[0].verdict = "broken"' "$tmp/1.json" >"$tmp/evil.json"
echo '{ "caught": 3, "</script>": [ { "a": "<b>" } ] }' >"$tmp/mutants.json"
expect 0 "$telebed" report "$tmp/evil.json" --mutants "$tmp/mutants.json" --torture "$tmp/mutants.json" \
	-o "$tmp/evil.html" -o "$tmp/evil.xml"
page "$tmp/evil.html"
same "$(data "$tmp/evil.html" | gojq -r .torture.caught)" 3 "what is given along"
same "$(data "$tmp/evil.html" | gojq -r '.cells[0].why')" \
	"$(printf '</script><script>alert(1)</script><!-- \u2028 ]]> \ufffd \ufffd \ufffd &amp; \u00e9')" "hostile text"
xmllint --noout --schema tests/junit.xsd "$tmp/evil.xml" >"$tmp/out" 2>&1 || fail "$(cat "$tmp/out")"

# What is no report is not taken for one.
echo '{ "format": "telebed-report", "version": 2 }' >"$tmp/later.json"
expect 65 "$telebed" report "$tmp/later.json"
grep -q 'later.json: not a report of version 1' "$tmp/out" || fail "$(cat "$tmp/out")"
printf '{\n"a": ' >"$tmp/cut.json"
expect 65 "$telebed" report "$tmp/cut.json"
grep -q 'cut.json:2: ' "$tmp/out" || fail "$(cat "$tmp/out")"
expect 64 "$telebed" report
