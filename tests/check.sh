#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs every case given on standard input, one a line: NAME LIMIT COMMAND...
# Prints the outcome of each, the output of those that fail, the ten slowest, and
# "N passed, N failed" as the last line. Exit code 0: all passed.
set -u
log=build/check
rm -rf "$log"
mkdir -p "$log"
passed=0 failed=0
while read -r name limit command; do
	[ -n "$name" ] || continue
	start=$(date +%s%N)
	if timeout -k 5 "$limit" bash -c "$command" >"$log/$name.log" 2>&1 </dev/null; then
		passed=$((passed + 1)) verdict=ok
	else
		failed=$((failed + 1)) verdict="not ok (exit code $?)"
	fi
	ms=$((($(date +%s%N) - start) / 1000000))
	echo "$ms $name" >>"$log/times"
	printf '%-40s %7d ms  %s\n' "$name" "$ms" "$verdict"
	[ "$verdict" = ok ] || sed 's/^/    /' "$log/$name.log" | tail -40
done
echo "slowest:"
sort -rn "$log/times" | head -10 | sed 's/^\([0-9]*\) /  \1 ms  /'
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
