#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# chain.sh PROBE RUNNER=BUILD...: the probe is saved, restored by the first receiver, which saves it
# again, and so on. RUNNER is "native" or an emulator; the probe itself starts under the first.
set -eu
probe=$1
shift
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

run=${1%%=*} build=${1#*=}
# Who is to reach an emulated processor starts on a baseline.
if [ "$run" = native ]; then run="$build/bin/telefork run --"; fi
$run "$build/probes/$probe" "$tmp/image.tf"
image=$tmp/image.tf n=1
for hop in "$@"; do
	run=${hop%%=*} build=${hop#*=}
	case $run in
	native) run= ;;
	*) run="env QEMU_STACK_SIZE=1073741824 $run" ;;
	esac
	# shellcheck disable=SC2086 # the runner is some words or none
	$run "$build/bin/telefork-pad" restore "$image" >"$tmp/said" || { cat "$tmp/said"; exit 1; }
	n=$((n + 1)) image=$tmp/image.tf.$n
done
cat "$tmp/said"
grep -q '^ok ' "$tmp/said"
