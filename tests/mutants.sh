#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# mutants.sh BUILD MUTATE [RUNNER | outside]: the tests' own power to notice. An image of the register probe is
# damaged in one thing at a time (every class of registers, every attribute of a mapping, what the
# kernel knows of the process), with correct checksums, and restored: the run must be red. Prints what
# was said about each kind of damage, and how many were caught by name, by a refusal, by a crash.
set -eu
build=$1 mutate=$2 run=${3:-} right=ok wrong='not ok'
if [ "$run" = outside ]; then right=right wrong=wrong run=''; fi
receive="$run"
if [ -n "$run" ]; then receive="env QEMU_STACK_SIZE=268435456 $run"; fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# one NAME: restores that mutant, writes "HOW NAME WORDS" into its own file
one() {
	local name=$1 image=$tmp/$1.tf said how
	"$mutate" "$tmp/whole.tf" "$image" "$name"
	# shellcheck disable=SC2086 # words
	said=$(timeout -s KILL 60 $receive "$build/bin/telefork-pad" restore "$image" 2>&1 | tr -d '\0' | sed '/^telefork: pid /d' | head -c 400) || true
	rm "$image"
	case $said in
	"$right "*) how=SURVIVED ;;
	"$wrong: "*) how=named ;;
	telefork:*) how=refused ;;
	*) how=crashed ;;
	esac
	# Found, but as something else?
	case $name in
	process.* | map.* | thread.* | pending.* | fd.*) ;;
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

# A program that knows nothing of telefork, whose registers are its waiting's.
dump_settled() {
	local settled pid
	mkdir "$tmp/folder"
	echo 0123456789 >"$tmp/folder/file"
	"$build/probes/settled-pie" "$tmp/folder" >"$tmp/settled.out" </dev/null &
	settled=$!
	until grep -q '^ready' "$tmp/settled.out"; do
		kill -0 $settled 2>/dev/null || { cat "$tmp/settled.out"; exit 1; }
		sleep 0.01
	done
	pid=$(sed -n 's/^ready //p' "$tmp/settled.out")
	"$build/bin/telefork" dump "$pid" -o "$tmp/whole.tf" >"$tmp/dump.out"
	kill -USR1 "$pid"
	wait $settled
}

if [ "$right" = right ]; then
	dump_settled
else
	$run "$build/probes/registers-pie" "$tmp/whole.tf" --seed 5
fi
said=$($receive "$build/bin/telefork-pad" restore "$tmp/whole.tf" 2>&1 | sed '/^telefork: pid /d')
case $said in "$right "*) ;; *) echo "undamaged: $said"; exit 1 ;; esac
"$mutate" --list "$tmp/whole.tf" >"$tmp/names"
if [ "$right" = right ]; then sed -i '/^\(process\|map\|thread\|pending\|fd\)\./!d' "$tmp/names"; fi
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
