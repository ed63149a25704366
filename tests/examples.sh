#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# examples.sh TELEBED: the files for continuous integration in docs/examples are YAML with keys that GitHub and
# GitLab know (ci.schema.json), their scripts are shell, and what they call is there: targets of make, commands
# and options of telebed.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
telebed=$1

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

# valid FILE: by the definition of its name
valid() {
	python3 - "$1" <<-'END'
		import json, os, sys, jsonschema, yaml

		with open("tests/ci.schema.json") as f:
		    schema = json.load(f)
		name = os.path.basename(sys.argv[1]).removesuffix(".yml")
		schema["$ref"] = "#/definitions/" + name
		with open(sys.argv[1]) as f:
		    document = yaml.safe_load(f)
		if True in document:  # YAML 1.1 takes "on" for that
		    document["on"] = document.pop(True)
		wrong = list(jsonschema.Draft7Validator(schema).iter_errors(document))
		for error in wrong:
		    print("/".join(map(str, error.absolute_path)), error.message, sep=": ")
		stages = document.get("stages", [])
		for job, what in document.items() if stages else []:
		    if isinstance(what, dict) and what.get("stage", stages[0]) not in stages:
		        wrong.append(print(job + ": no such stage"))
		for job, what in document.get("jobs", {}).items():
		    for need in [what["needs"]] if isinstance(what.get("needs"), str) else what.get("needs", []):
		        if need not in document["jobs"]:
		            wrong.append(print(job + ": needs " + need + ", which is not there"))
		sys.exit(bool(wrong))
	END
}

for file in docs/examples/*.yml; do
	valid "$file" >"$tmp/wrong" || fail "$file: $(cat "$tmp/wrong")"
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
