#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# moments.sh BUILD COUNT [RUNNER]: captures the spin probe at COUNT seeded moments; each image has to
# finish its work, and the moments have to be different instructions.
set -eu
build=$1 count=$2 run=${3:-}
receive="$run"
if [ -n "$run" ]; then receive="env QEMU_STACK_SIZE=268435456 $run"; fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for ((seed = 1; seed <= count; seed++)); do
	$run "$build/probes/spin-pie" "$tmp/$seed.tf" "$seed"
	[ "$($receive "$build/bin/telefork-pad" restore "$tmp/$seed.tf")" = ok ]
	build/x86_64/bin/telefork inspect "$tmp/$seed.tf" | awk '{ for (i = 1; i < NF; i++) if ($i == "rip" || $i == "pc") { print $(i + 1); exit } }' >>"$tmp/pcs"
	rm "$tmp/$seed.tf"
done
distinct=$(sort -u "$tmp/pcs" | wc -l)
echo "$count moments, $distinct distinct program counters, 0 lost"
[ "$distinct" -gt $((count / 4)) ]
