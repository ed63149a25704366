#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# attrs_mutants.sh BUILD MUTATE [EVERY]: the attrs probe's own power to notice. Of an image of it one thing
# that the kernel keeps is forgotten at a time (a limit, a policy, a group, a timer ...), each EVERY-th of
# them; the restored probe has to say what is wrong, or the image is refused. What cannot be noticed is
# listed here, with the reason.
set -eu
# shellcheck source=tests/bare.sh
. "$(dirname "$0")/bare.sh"
build=$(cd "$1" && pwd) mutate=$2 every=${3-1}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Processors of the source; what belongs to the fourth thread, which is the C library's own and says
# nothing: its timer's callback is called, or not; a thread that may run everywhere does so if nothing is
# known of it.
unnoticed='process.0.n_cpus|attributes.2.cpus|attributes.3|rights.3|group.(9|10|11)'

close_descriptors
: >"$tmp/original"
"$build/probes/attrs-static" rights filters >"$tmp/original" &
original=$!
until grep -q '^ready' "$tmp/original"; do sleep 0.02; done
"$build/bin/telefork" dump "$original" -o "$tmp/whole.tf" --kill >"$tmp/dump"
wait "$original" 2>/dev/null || true

# run IMAGE: restores it, wakes it, prints what it says.
run() {
	(
		umask 0
		ulimit -Sc 1 -Sn 100 -Sf 12345 -Ss 9000 -St 1234
		cd /
		echo 123 >/proc/self/oom_score_adj
		exec nice -n 1 taskset 1 "$build/bin/telefork" restore "$1" </dev/null >"$1.out" 2>"$1.err"
	) &
	until grep -q '^telefork: pid ' "$1.err" 2>/dev/null; do
		kill -0 $! 2>/dev/null || break
		sleep 0.02
	done
	kill -USR1 "$(sed -n 's/^telefork: pid \([0-9]*\).*/\1/p' "$1.err")" 2>/dev/null || true
	wait $! || true
	cat "$1.out" "$1.err" 2>/dev/null
}

case $(run "$tmp/whole.tf") in right*) ;; *) cat "$tmp/whole.tf".*; exit 1 ;; esac
total=0 survived=0
for name in $("$mutate" --list "$tmp/whole.tf" | grep '^kept\.' | grep -Ev "\.($unnoticed)" |
	awk "NR % $every == 0"); do
	"$mutate" "$tmp/whole.tf" "$tmp/one.tf" "$name"
	said=$(run "$tmp/one.tf" | tr '\n' ' ' | cut -c1-110)
	rm -f "$tmp"/one.tf*
	total=$((total + 1))
	case $said in
	right*) survived=$((survived + 1)) said="SURVIVED $said" ;;
	esac
	printf '%-34s %s\n' "${name#kept.}" "$said"
done
echo "caught $((total - survived)) of $total"
[ "$survived" = 0 ] && [ "$total" != 0 ]
