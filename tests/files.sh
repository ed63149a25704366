#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# files.sh BUILD [VARIANT]: descriptors of a program that is captured from outside (tests/probes/files.c, which
# checks them itself) arrive as they were, in a process that began with other ones, elsewhere; and what the
# destination lacks is said before anything is made: files, the working directory, descriptors, threads, places
# for signals. What may be gone without is named.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$(cd "$1" && pwd) probe=$(cd "$1" && pwd)/probes/files-${2-pie}
telefork=$build/bin/telefork
mkdir "$tmp/home"

cd "$tmp/home"
begin_ready here "$probe"
"$telefork" dump "$pid" -o "$tmp/image" >"$tmp/dump.out" || fail dump
cp -a "$tmp/home" "$tmp/kept"

# The source is unharmed.
kill -USR1 "$pid"
wait "$pid" || fail "here: $?"
grep -q '^right' "$tmp/here.out" || fail "here"

# The copy, from another folder, with other descriptors, limits and streams.
cd /
("$telefork" restore --detach "$tmp/image" >"$tmp/there.out" 2>"$tmp/there.err" 7</dev/zero 50>"$tmp/other" </dev/zero)
pid=$(tail -n 1 "$tmp/there.out")
pids+=("$pid")
[ "$(readlink "/proc/$pid/cwd")" = "$tmp/home" ] || fail "working directory"
kill -USR1 "$pid"
within "over there" grep -q '^right' "$tmp/there.out"
grep -q '^through the duplicate' "$tmp/there.out" || fail "a duplicate of a stream"
sed -n 's/^right/values right:/p' "$tmp/there.out"

# refused WORDS [COMMAND...]: nothing is made; the reason is named.
refused() {
	local words=$1
	shift
	"$@" "$telefork" restore "$tmp/image" >"$tmp/refused.out" 2>"$tmp/refused.err" && fail "not refused: $words"
	grep -q -- "$words" "$tmp/refused.err" || fail "not said: $words"
}
# left WORDS: it goes on without, and says so.
left() {
	"$telefork" restore --dry-run --allow files "$tmp/image" >"$tmp/left.out" 2>"$tmp/left.err" ||
		fail "not without it: $1"
	grep -q -- "$1" "$tmp/left.err" || fail "not said to be left: $1"
}
mv "$tmp/home/log" "$tmp/log"
refused "descriptor [0-9]*, $tmp/home/log: ENOENT: put the file there"
left "$tmp/home/log: ENOENT; its number is held"
mv "$tmp/log" "$tmp/home/log"
: >"$tmp/home/data"
refused "$tmp/home/data: shorter here than the process has come in it"
left "$tmp/home/data: shorter"
rm -r "${tmp:?}/home"
refused "working directory $tmp/home: ENOENT: make it"
left "working directory $tmp/home: ENOENT"
mv "$tmp/kept" "$tmp/home"
refused 'RLIMIT_NOFILE here is 62' prlimit --nofile=62:62
"$telefork" restore --dry-run "$tmp/image" >"$tmp/plan.out" || fail "it is all there again"

# Limits that a user has: threads, and signals that wait.
[ "$(id -u)" = 0 ] || { echo "skip: limits of another user: this is not root"; exit 0; }
chmod 711 "$tmp" && cp "$telefork" "$tmp/telefork"
begin_ready outside "$build/probes/outside-${2-pie}" "$tmp/end"
nine_threads() { [ "$(find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l)" = 9 ]; }
within "there are not nine threads" nine_threads
"$telefork" dump "$pid" -o "$tmp/image" --kill >"$tmp/dump.out" || fail "dump of threads"
wait "$pid" 2>/dev/null || true
chmod 644 "$tmp/image"
telefork=$tmp/telefork
user() { setpriv --reuid=54321 --regid=54321 --clear-groups --bounding-set=-all prlimit "$@"; }
refused 'threads: the process has 9, [0-8] more may be here: raise ulimit -u' user --nproc=9:9
refused 'signals: 4 are pending, 3 more may be here: raise ulimit -i' user --sigpending=3:3
user --nproc=30:30 --sigpending=4:4 "$telefork" restore --dry-run --allow credentials "$tmp/image" >"$tmp/plan.out" ||
	fail "limits that are enough"
