#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# mutants.sh BUILD MUTATE [RUNNER]: the tests' own power to notice. An image of the register probe is
# damaged in one thing at a time (every class of registers, every attribute of a mapping, what the
# kernel knows of the process), with correct checksums, and restored: the run must be red. Prints what
# was said about each kind of damage, and how many were caught by name, by a refusal, by a crash.
set -eu
build=$1 mutate=$2 run=${3:-}
receive="$run"
if [ -n "$run" ]; then receive="env QEMU_STACK_SIZE=268435456 $run"; fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# one NAME: restores that mutant, writes "HOW NAME WORDS" into its own file
one() {
	local name=$1 image=$tmp/$1.tf said how
	"$mutate" "$tmp/whole.tf" "$image" "$name"
	# shellcheck disable=SC2086 # words
	said=$(timeout -s KILL 60 $receive "$build/bin/telefork-pad" restore "$image" 2>&1 | tr -d '\0' | head -c 400) || true
	rm "$image"
	case $said in
	"ok "*) how=SURVIVED ;;
	"not ok: "*) how=named ;;
	telefork:*) how=refused ;;
	*) how=crashed ;;
	esac
	# Found, but as something else?
	case $name in
	process.* | map.*) ;;
	*)
		local register=${name#*.}
		case "$how $said" in
		named*"register ${register%.*}:"*) ;;
		named*) how=misnamed ;;
		esac
		;;
	esac
	printf '%-9s %-28s %s\n' "$how" "$name" "$(printf %s "$said" | tr '\n' ' ' | cut -c1-90)" >"$tmp/$name.verdict"
}

$run "$build/probes/registers-pie" "$tmp/whole.tf" --seed 5
said=$($receive "$build/bin/telefork-pad" restore "$tmp/whole.tf")
case $said in "ok "*) ;; *) echo "undamaged: $said"; exit 1 ;; esac
"$mutate" --list "$tmp/whole.tf" >"$tmp/names"
while read -r name; do
	while [ "$(jobs -pr | wc -l)" -ge 2 ]; do wait -n; done
	one "$name" &
done <"$tmp/names"
wait
cat "$tmp"/*.verdict | sort -k2
total=$(wc -l <"$tmp/names")
caught=$(cat "$tmp"/*.verdict | grep -cv '^SURVIVED\|^misnamed') || true
count() { cat "$tmp"/*.verdict | grep -c "^$1" || true; }
echo "caught $caught of $total ($(count named) by name, $(count refused) refused, $(count crashed) by a crash)"
[ "$caught" = "$total" ]
