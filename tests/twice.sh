#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# twice.sh BUILD PROBE [RUNNER]: a probe that draws random numbers is saved once and restored twice.
# Both copies come from the same image; what they draw must differ.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$1 probe=$2
runner ${3+"$3"}

"${run[@]}" "$build/probes/$probe" "$tmp/image.tf"
for i in 1 2; do
	"${receive[@]}" "$build/bin/telefork-pad" restore "$tmp/image.tf" >"$tmp/said$i"
	cat "$tmp/said$i"
	grep -q '^ok .* was drawn$' "$tmp/said$i" || fail "number $i"
done
! cmp -s "$tmp/said1" "$tmp/said2" || fail "both copies drew the same numbers"
