#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# ssh.sh BUILD: addresses ssh://. In the place of ssh stands a script that drops options and host and
# executes the command here, with a socket for both standard streams or, for the host "pipes", with two
# pipes, as sshd may give it. Nothing of it is left when nobody needs it any more.
set -eu
# shellcheck source=tests/bare.sh
. "$(dirname "$0")/bare.sh"
build=$(cd "$1" && pwd)
tmp=$(mktemp -d)
pids=()
trap 'kill -KILL "${pids[@]}" 2>/dev/null || true; rm -rf "$tmp"' EXIT
export TMP_SSH=$tmp TELEFORK_SSH=$tmp/ssh PATH=$build/bin:$PATH

fail() {
	echo "FAILED: $*"
	cat "$tmp/out" "$tmp/err" "$tmp/log" 2>/dev/null || true
	exit 1
}
cat >"$tmp/ssh" <<'EOF'
#!/bin/bash
echo "$$ $*" >>"$TMP_SSH/log"
[ "$1" != -p ] || shift 2
host=$1
shift
case $host in
pipes) cat | sh -c "$*" | cat ;;
nowhere) echo "ssh: Could not resolve hostname $host"$'\r' >&2 && exit 255 ;;
without) PATH=/usr/bin:/bin && exec sh -c "$*" ;;
mute) exec sleep 60 ;;
*) exec sh -c "$*" ;;
esac
EOF
chmod +x "$tmp/ssh"

# expect CODE TEXT COMMAND...
expect() {
	local code=$1 text=$2 rc=0
	shift 2
	"$@" >"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
	[ "$rc" = "$code" ] || fail "$*: exit code $rc, not $code"
	cat "$tmp/out" "$tmp/err" | tr '\n' ' ' | grep -Eq -e "$text" || fail "$*: no \"$text\""
}
# gone: no ssh is left that was started.
gone() {
	local pid _ i
	while read -r pid _; do
		for ((i = 0; i < 3000; i++)); do
			[ -d "/proc/$pid" ] || continue 2
			sleep 0.01
		done
		fail "ssh $pid goes on: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
	done <"$tmp/log"
}

# --- what ssh is told, and what it is not told ---

expect 0 '^ok' "$build/probes/hop-pie" ssh://me@host.example:2222/
grep -q '^[0-9]* -p 2222 me@host.example telefork serve --once --detach -$' "$tmp/log" || fail "arguments"
expect 0 '^ok' "$build/probes/hop-pie" 'ssh://[::1]'
grep -q '^[0-9]* ::1 telefork serve ' "$tmp/log" || fail "an address in brackets"
for bad in ssh://-oProxyCommand=x ssh://me@-oProxyCommand=x ssh://-me@host 'ssh://a;b' 'ssh://$(b)' \
	'ssh://a b' ssh:// ssh://@host ssh://host: ssh://host:22x 'ssh://[::1' ssh://host/path; do
	before=$(wc -l <"$tmp/log")
	expect 2 TELEFORK_E_ADDRESS "$build/probes/hop-pie" "$bad"
	[ "$(wc -l <"$tmp/log")" = "$before" ] || fail "$bad was given to ssh"
done
expect 69 'no address of a socket' telefork serve ssh://host

# --- failures, in ssh's own words ---

expect 2 'TELEFORK_E_REFUSED: ssh://nowhere: ssh ended with exit code 255: ssh: Could not resolve hostname nowhere *$' \
	"$build/probes/hop-pie" ssh://nowhere
expect 2 'exit code 127: .*not found: telefork has to be in the PATH over there' "$build/probes/hop-pie" ssh://without
TELEFORK_SSH=/nonexistent expect 2 '/nonexistent: ENOENT' "$build/probes/hop-pie" ssh://host

# --- there, and there and back ---

for host in host pipes; do
	expect 0 '^ok' "$build/probes/hop-pie" "ssh://$host"
	expect 0 'a line from there.*a word from there' "$build/probes/yoyo-pie" "ssh://$host"
	gone
done

# --- from outside: the copy goes on when nothing of the session is left ---

# count NAME: a program that writes 1 to 100 into $tmp/NAME, whoever listens to it, the second half when
# there is a $tmp/NAME.go; its pid in $pid.
count() {
	(
		close_descriptors
		exec perl -e 'open F, ">>", $ARGV[0]; F->autoflush; $| = 1;
			for (1 .. 100) {
				print F "$_\n"; print "$_\n";
				do { select undef, undef, undef, 0.01 } until $_ != 50 || -e "$ARGV[0].go";
			}
			print F "end\n"' "$tmp/$1"
	) >/dev/null 2>&1 </dev/null &
	pid=$!
	pids+=("$pid")
	until [ -s "$tmp/$1" ]; do sleep 0.01; done
}
for host in host pipes; do
	count "$host"
	expect 0 "process $pid can travel to ssh://$host" telefork check --to "ssh://$host" "$pid"
	expect 0 "^$pid moved: pid [0-9]+: frozen" telefork move "$pid" "ssh://$host"
	there=$(sed -n 's/.*: pid \([0-9]*\): .*/\1/p' "$tmp/out")
	pids+=("$there")
	gone
	[ "$(readlink "/proc/$there/fd/"{0,1,2} | sort -u)" = /dev/null ] || fail "it depends on the session"
	: >"$tmp/$host.go"
	for ((i = 0; i < 3000; i++)); do
		! grep -q end "$tmp/$host" || break
		sleep 0.01
	done
	cmp "$tmp/$host" <(seq 100 && echo end) || fail "it did not count to the end over there"
	wait "$pid" && fail "the original lives" || [ $? = 137 ] || fail "the original ended by itself"
done
gone
echo "ssh: ok"
