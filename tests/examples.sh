#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# examples.sh TELEBED: the files for continuous integration in docs/examples are YAML, their scripts are
# shell, and what they call is there: targets of make, commands and options of telebed.
set -eu
telebed=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() {
	echo "$*"
	exit 1
}

# scripts FILE: every script in it, one a line; ${{ }} of GitHub becomes X
scripts() {
	python3 - "$1" <<-'END'
		import re, sys, yaml

		def walk(node):
		    if isinstance(node, dict):
		        for key, value in node.items():
		            if key in ("script", "before_script") or key == "run" and isinstance(value, str):
		                for line in value if isinstance(value, list) else [value]:
		                    print(re.sub(r"\$\{\{.*?\}\}", "X", line).strip().replace("\n", "; "))
		            else:
		                walk(value)
		    elif isinstance(node, list):
		        for value in node:
		            walk(value)

		walk(yaml.safe_load(open(sys.argv[1])))
	END
}

for file in docs/examples/*.yml; do
	scripts "$file" >"$tmp/script"
	[ "$(wc -l <"$tmp/script")" -ge 4 ] || fail "$file: only $(cat "$tmp/script")"
	bash -n "$tmp/script" || fail "$file: $(cat "$tmp/script")"
	grep -o 'make [a-z].*' "$tmp/script" >"$tmp/make" || fail "$file builds nothing"
	while read -r _ targets; do
		[ "$targets" = make ] || # a package
			for target in $targets; do
				make -n "$target" >"$tmp/out" 2>&1 || fail "$file: make $target: $(tail -1 "$tmp/out")"
			done
	done <"$tmp/make"
	for command in run report; do
		line=$(grep "/telebed $command " "$tmp/script") || fail "$file: no telebed $command"
		"$telebed" "$command" --help >"$tmp/help"
		# shellcheck disable=SC2013 # they are words
		for option in $(grep -o -e '--[a-z-]*' -e ' -[a-z] ' <<<"$line"); do
			grep -q -e "^ .*$option\\b" "$tmp/help" || fail "$file: telebed $command has no $option"
		done
	done
done
