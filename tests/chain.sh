#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# chain.sh PROBE RUNNER=BUILD...: the probe is saved, restored by the first receiver, which saves it
# again, and so on. RUNNER is "native" or an emulator; the probe itself starts under the first.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
probe=$1
shift

build=${1#*=}
# Who is to reach an emulated processor starts on a baseline.
case ${1%%=*} in native) run=("$build/bin/telefork" run --) ;; *) run=("${1%%=*}") ;; esac
"${run[@]}" "$build/probes/$probe" "$tmp/image.tf"
image=$tmp/image.tf n=1
for hop in "$@"; do
	case ${hop%%=*} in native) runner ;; *) runner "${hop%%=*}" ;; esac
	"${receive[@]}" "${hop#*=}/bin/telefork-pad" restore "$image" >"$tmp/out" || fail "$hop: exit code $?"
	n=$((n + 1)) image=$tmp/image.tf.$n
done
cat "$tmp/out"
grep -q '^ok ' "$tmp/out" || fail "not all was found"
