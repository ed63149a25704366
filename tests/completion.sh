#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# completion.sh BUILD: bash is asked what it would offer, and the answers are held against --help; zsh looks
# at the syntax of its own file, where there is a zsh.
set -eu
telefork=$1/bin/telefork
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

fail() {
	echo "FAILED: $*"
	failed=1
}
for shell in bash zsh; do
	sh docs/completion/make.sh $shell "$telefork" >"$tmp/$shell"
done
# shellcheck source=/dev/null
. "$tmp/bash"
compopt() { :; } # works only inside of a completion

# offers WORD...: what bash offers for the last one, on one line.
offers() {
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	_telefork
	echo "${COMPREPLY[*]}"
}
# expect OFFERED WORD...
expect() {
	local offered=$1 got
	shift
	got=$(offers "$@")
	[ "$got" = "$offered" ] || fail "$*: \"$got\", not \"$offered\""
}

mapfile -t commands < <("$telefork" --help |
	awk '/^Commands:/ { inside = 1; next } NF < 2 { inside = 0 } inside { print $1 }')
[ ${#commands[@]} -ge 8 ] || fail "commands: ${commands[*]}"
expect "${commands[*]} --help --version" telefork ''
for command in "${commands[@]}"; do
	mapfile -t options < <("$telefork" "$command" --help | grep -oE '^ +(-., )?--[a-z-]+=?' | grep -oE -e '--.*' | grep -v usage)
	expect "${options[*]}" telefork "$command" -
	grep -q "^$command)\$" "$tmp/zsh" || fail "zsh: no $command"
	for option in "${options[@]}"; do
		sed -n "/^$command)\$/,/;;/p" "$tmp/zsh" | grep -q -e "$option'\[" || fail "zsh: no $command $option"
	done
done
expect 'restore' telefork res
expect 'same new' telefork restore --pid = ''
expect 'same new' telefork restore --pid =
expect 'new' telefork restore -p n
expect 'eventfd' telefork dump --allow = event
expect 'eventfd' telefork dump 1 --allow = event
expect 'ssh://' telefork move 1 s
expect 'tcp://' telefork serve --token-file = x t
expect '' telefork serve --max-jobs = ''
[[ " $(offers telefork check '') " == *" $$ "* ]] || fail "check: no process"
[[ " $(offers telefork dump -o x '') " == *" $$ "* ]] || fail "dump: no process behind -o FILE"
cd "$tmp"
expect 'zsh' telefork inspect z
expect 'zsh' telefork verify 1 z
expect 'zsh' telefork dump 1 -o z
expect 'zsh' telefork run cat z
if command -v zsh >/dev/null; then zsh -n zsh; else echo "skip: there is no zsh here to read its file"; fi
[ $failed = 0 ] && echo "completion: ok"
