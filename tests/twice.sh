#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# twice.sh BUILD PROBE [RUNNER]: a probe that draws random numbers is saved once and restored twice.
# Both copies come from the same image; what they draw must differ.
set -eu
build=$1 probe=$2 run=${3:-}
receive="$run"
if [ -n "$run" ]; then receive="env QEMU_STACK_SIZE=1073741824 $run"; fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

$run "$build/probes/$probe" "$tmp/image.tf"
for i in 1 2; do
	# shellcheck disable=SC2086 # the runner is a word or nothing
	$receive "$build/bin/telefork-pad" restore "$tmp/image.tf" >"$tmp/said$i"
	cat "$tmp/said$i"
	grep -q '^ok .* was drawn$' "$tmp/said$i"
done
if cmp -s "$tmp/said1" "$tmp/said2"; then
	echo "both copies drew the same numbers"
	exit 1
fi
