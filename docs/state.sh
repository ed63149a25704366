#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# state.sh write|check: docs/state.md's table, from the rows of docs/state.table and what build/*/results
# say of the cases that they name (tests/check.sh writes those; for a target that runs telebed, its report
# build/TARGET/report.json). check: every proof exists, and docs/state.md has these rows; what became of the
# cases is the last column, which only write looks at. The names of the cases are in CASES and UNIT_CASES, as
# make exports them.
set -eu
shopt -s nullglob
table=docs/state.table page=docs/state.md bad=0
mapfile -t cases < <(awk 'NF { print $1 }' <<<"${UNIT_CASES-} ${CASES-}")
declare -A verdict=()

# results TARGET...: what became of its cases, NAME ok|failed|skipped on a line, from the file that is there
results() {
	local of
	for of; do
		[ ! -f "build/$of/results" ] || cat "build/$of/results"
		[ ! -f "build/$of/report.json" ] || gojq -r '.cells[] | .verdict |= sub("broken|unable"; "failed") |
			"\(.name) \(.verdict)"' "build/$of/report.json"
	done
}
targets=(build/*/)
while read -r name word; do verdict[$name]=$word; done < <(results "${targets[@]#build/}")

complain() {
	echo "$table: \"$kind\": $*" >&2
	bad=1
}

# outcome CASE...: what became of all of them.
outcome() {
	local name not_run=0 skipped=() failed=()
	for name; do
		case ${verdict[$name]-} in
		ok) ;;
		'') not_run=1 ;;
		skipped) skipped+=("$name") ;;
		*) failed+=("$name") ;;
		esac
	done
	if [ ${#failed[@]} -gt 0 ]; then
		echo "FAILED: ${failed[*]}"
	elif [ $not_run = 1 ]; then
		echo "not run"
	elif [ ${#skipped[@]} -gt 0 ]; then
		echo "passed, with parts that this host cannot do: ${skipped[*]}"
	else
		echo "passed"
	fi
}

# prove PROOF: its text in $text, its outcome in $said.
prove() {
	local pattern=${1%%(*} detail='' name found=()
	case $1 in *\(*\)) detail=${1#*\(} detail=${detail%)} ;; esac
	text="\`$pattern\`${detail:+ ($detail)}"
	[ -z "$detail" ] || grep -rqwF -e "$detail" tests || complain "tests/ has no \"$detail\""
	case $pattern in
	make:*)
		text="\`make ${pattern#make:}\`"
		grep -q "^${pattern#make:}:" Makefile || complain "the Makefile has no target ${pattern#make:}"
		mapfile -t found < <(results "${pattern#make:}" | cut -d ' ' -f 1)
		[ ${#found[@]} -gt 0 ] || found=("$pattern")
		;;
	*)
		for name in "${cases[@]}"; do
			# shellcheck disable=SC2254 # it is a pattern
			case $name in $pattern) found+=("$name") ;; esac
		done
		[ ${#found[@]} -gt 0 ] || complain "make check has no case $pattern"
		;;
	esac
	said=$(outcome "${found[@]}")
}

# The table on $1.
rows() {
	local kind x86_64 aarch64 user proofs proof texts outcomes list
	echo "| kind of state | x86_64 | aarch64 | restored in QEMU user mode | proof | last run |"
	echo "| --- | --- | --- | --- | --- | --- |"
	while IFS='|' read -r kind x86_64 aarch64 user proofs; do
		kind=${kind% } texts='' outcomes=''
		read -ra list <<<"$proofs"
		[ ${#list[@]} -gt 0 ] || complain "a row has five columns, the last one a proof or -"
		for proof in "${list[@]}"; do
			text=none said=-
			[ "$proof" = - ] || prove "$proof"
			texts+="${texts:+, }$text"
			case "; $outcomes;" in *"; $said;"*) ;; *) outcomes+="${outcomes:+; }$said" ;; esac
		done
		echo "| $kind |$x86_64|$aarch64|$user| $texts | $outcomes |"
	done < <(sed '/^#/d; /^ *$/d' $table)
}

new=$(mktemp)
trap 'rm -f "$new"' EXIT
rows >"$new"
[ $bad = 0 ] || exit 1
without_outcome() { sed 's/ [^|]* |$//'; }
case ${1-} in
write) sed -i -e "/^<!-- table: /r $new" -e '/^<!-- table: /,/^<!-- end of/{/^|/d}' $page ;;
check)
	diff -u <(grep '^|' $page | without_outcome) <(without_outcome <"$new") || {
		echo "$page does not have the rows of $table: make docs" >&2
		exit 1
	}
	;;
*) echo "$0: write or check" >&2 && exit 64 ;;
esac
