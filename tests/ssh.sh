#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# ssh.sh BUILD: addresses ssh://. In the place of ssh stands a script that drops options and host and
# executes the command here, with a socket for both standard streams or, for the host "pipes", with two
# pipes, as sshd may give it. Nothing of it is left when nobody needs it any more. At the end the same with
# ssh and an sshd of its own on a loopback port, which has to be started by root.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$(cd "$1" && pwd)
export TMP_SSH=$tmp TELEFORK_SSH=$tmp/ssh PATH=$build/bin:$PATH

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
told) cat | XDG_STATE_HOME=$TMP_SSH/there sh -c "$*" | tee "$TMP_SSH/said" ;;
cut) # the last byte of what the receiver says, and connections afterwards, until it is mended
	export XDG_STATE_HOME=$TMP_SSH/there
	case $(cat "$TMP_SSH/cut") in
	whole) echo broken >"$TMP_SSH/cut" ;;
	broken) exit 255 ;;
	mended) exec sh -c "$*" ;;
	esac
	cat | sh -c "$*" | dd bs=1 count=$(($(wc -c <"$TMP_SSH/said") - 1)) status=none ;;
*) exec sh -c "$*" ;;
esac
EOF
chmod +x "$tmp/ssh"

# answers CODE TEXT COMMAND...
answers() {
	local code=$1 text=$2 rc=0
	shift 2
	"$@" >"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
	[ "$rc" = "$code" ] || fail "$*: exit code $rc, not $code"
	cat "$tmp/out" "$tmp/err" | tr '\n' ' ' | grep -Eq -e "$text" || fail "$*: no \"$text\""
}
# gone: no ssh is left that was started.
gone() {
	local pid _
	while read -r pid _; do
		within "ssh $pid goes on" test ! -d "/proc/$pid"
	done <"$tmp/log"
}

# --- what ssh is told, and what it is not told ---

answers 0 '^ok' "$build/probes/hop-pie" ssh://me@host.example:2222/
grep -q '^[0-9]* -p 2222 me@host.example telefork serve --once --detach -$' "$tmp/log" || fail "arguments"
answers 0 '^ok' "$build/probes/hop-pie" 'ssh://[::1]'
grep -q '^[0-9]* ::1 telefork serve ' "$tmp/log" || fail "an address in brackets"
for bad in ssh://-oProxyCommand=x ssh://me@-oProxyCommand=x ssh://-me@host 'ssh://a;b' 'ssh://$(b)' \
	'ssh://a b' ssh:// ssh://@host ssh://host: ssh://host:22x 'ssh://[::1' ssh://host/path; do
	before=$(wc -l <"$tmp/log")
	answers 2 TELEFORK_E_ADDRESS "$build/probes/hop-pie" "$bad"
	[ "$(wc -l <"$tmp/log")" = "$before" ] || fail "$bad was given to ssh"
done
answers 69 'no address of a socket' telefork serve ssh://host

# --- failures, in ssh's own words ---

answers 2 'TELEFORK_E_REFUSED: ssh://nowhere: ssh ended with exit code 255: ssh: Could not resolve hostname nowhere *$' \
	"$build/probes/hop-pie" ssh://nowhere
answers 2 'exit code 127: .*not found: telefork has to be in the PATH over there' "$build/probes/hop-pie" ssh://without
TELEFORK_SSH=/nonexistent answers 2 '/nonexistent: ENOENT' "$build/probes/hop-pie" ssh://host

# --- there, and there and back ---

for host in host pipes; do
	answers 0 '^ok' "$build/probes/hop-pie" "ssh://$host"
	answers 0 'a line from there.*a word from there' "$build/probes/yoyo-pie" "ssh://$host"
	gone
done

# --- from outside: the copy goes on when nothing of the session is left ---

# count NAME: a program that writes 1 to 100 into $tmp/NAME, whoever listens to it, the second half when
# there is a $tmp/NAME.go; its pid in $pid.
count() {
	begin null perl -e 'open F, ">>", $ARGV[0]; F->autoflush; $| = 1;
		for (1 .. 100) {
			print F "$_\n"; print "$_\n";
			do { select undef, undef, undef, 0.01 } until $_ != 50 || -e "$ARGV[0].go";
		}
		print F "end\n"' "$tmp/$1"
	within "$1 does not count" test -s "$tmp/$1"
}
# finished NAME: it has counted to the end.
finished() {
	: >"$tmp/$1.go"
	within "$1 does not count to the end" grep -q end "$tmp/$1"
	cmp "$tmp/$1" <(seq 100 && echo end) || fail "$1 did not count to the end"
}
for host in host pipes; do
	count "$host"
	answers 0 "process $pid can travel to ssh://$host" telefork check --to "ssh://$host" "$pid"
	answers 0 "^$pid moved: pid [0-9]+: frozen" telefork move "$pid" "ssh://$host"
	there=$(sed -n 's/.*: pid \([0-9]*\): .*/\1/p' "$tmp/out")
	pids+=("$there")
	gone
	[ "$(readlink "/proc/$there/fd/"{0,1,2} | sort -u)" = /dev/null ] || fail "it depends on the session"
	finished "$host"
	wait "$pid" && fail "the original lives" || [ $? = 137 ] || fail "the original ended by itself"
done
gone

# --- the last word is lost, and the receiver is asked later ---

# half NAME: as far as it gets on its own.
half() { until [ "$(wc -l <"$tmp/$1")" -ge 50 ]; do sleep 0.01; done; }
# lose NAME: a program whose move comes to no end that is known here: $pid, $id of the move, $there.
lose() {
	count "$1"
	half "$1"
	echo whole >"$tmp/cut"
	answers 75 'is not known. It stays stopped here' telefork move --idle-time 20 "$pid" ssh://cut
	[ "$(state "$pid")" = T ] || fail "it goes on here"
	id=$(telefork jobs | sed -n "s/^\([0-9a-f]*\)  process $pid .*committing.*/\1/p")
	there=$(XDG_STATE_HOME=$tmp/there telefork jobs |
		sed -n "s/^$id  process \([0-9]*\) .*running.*/\1/p")
	pids+=("$there")
	case $(state "$there") in [SRD]) ;; *) fail "it does not run there: $id, $there" ;; esac
}
export XDG_STATE_HOME=$tmp/here
count told
half told
answers 0 "^$pid moved: pid [0-9]+: frozen" telefork move "$pid" ssh://told
pids+=("$(sed -n 's/.*: pid \([0-9]*\): .*/\1/p' "$tmp/out")")
finished told

lose settled
answers 75 'whether it runs there is not known' telefork settle "$id"
echo mended >"$tmp/cut"
answers 0 "^$id: process $pid runs there as process $there, and was ended here" telefork settle "$id"
wait "$pid" && fail "the original lives" || [ $? = 137 ] || fail "the original ended by itself"
finished settled

# The receiver is no more, nor what it knew: only the user can say.
lose resumed
kill -KILL "$there"
rm -r "$tmp/there"
echo mended >"$tmp/cut"
answers 75 'no record of this move' telefork settle "$id"
[ "$(state "$pid")" = T ] || fail "it goes on here, without a word"
answers 64 'which ID' telefork settle --resume-here
[ "$(state "$pid")" = T ] || fail "it goes on here, without its id"
answers 0 "^$id: process $pid was not heard of: it goes on here" telefork settle --resume-here "$id"
finished resumed
wait "$pid" || fail "the original: $?"
answers 0 "^$id: process $pid is here; nothing is open" telefork settle "$id"
gone

# --- a real one ---

if [ "$(id -u)" != 0 ] || [ ! -x /usr/sbin/sshd ]; then
	echo "skip: an sshd, which only root may start (make check installs openssh-server)"
	echo "ssh: ok"
	exit 0
fi
mkdir -p /run/sshd
for key in host user; do ssh-keygen -q -t ed25519 -N '' -f "$tmp/key.$key"; done
port=$(perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 1)->sockport')
cat >"$tmp/sshd.conf" <<EOF
ListenAddress 127.0.0.1:$port
HostKey $tmp/key.host
AuthorizedKeysFile $tmp/key.user.pub
StrictModes no
PermitRootLogin prohibit-password
UsePAM no
PidFile none
SetEnv PATH=$PATH XDG_STATE_HOME=$tmp/there
EOF
cat >"$tmp/ssh" <<EOF
#!/bin/sh
exec ssh -F none -i "$tmp/key.user" -o BatchMode=yes -o StrictHostKeyChecking=accept-new \
	-o UserKnownHostsFile="$tmp/known" "\$@"
EOF
/usr/sbin/sshd -D -e -f "$tmp/sshd.conf" 2>"$tmp/log" </dev/null &
sshd=$!
pids+=("$sshd")
until grep -q 'Server listening' "$tmp/log"; do
	kill -0 "$sshd" 2>/dev/null || fail "sshd did not start"
	sleep 0.01
done
real=ssh://root@127.0.0.1:$port
answers 0 '^ok' "$build/probes/hop-pie" "$real"
answers 0 'a line from there.*a word from there' "$build/probes/yoyo-pie" "$real"
answers 2 'TELEFORK_E_REFUSED: .*Permission denied' "$build/probes/hop-pie" "ssh://nobody@127.0.0.1:$port"
count real
half real
answers 0 "process $pid can travel to $real" telefork check --to "$real" "$pid"
answers 0 "^$pid moved: pid [0-9]+: frozen" telefork move "$pid" "$real"
there=$(sed -n 's/.*: pid \([0-9]*\): .*/\1/p' "$tmp/out")
pids+=("$there")
id=$(telefork jobs | sed -n "s/^\([0-9a-f]*\)  process $pid .*/\1/p")
# As if its last word had been lost.
mv "$tmp/here/telefork/moves/$id.moved" "$tmp/here/telefork/moves/$id.committing"
answers 0 "^$id: process $pid runs there as process $there, and was ended here" telefork settle "$id"
# Post-copy: its memory is asked for through ssh, and nothing of that is left afterwards.
count lazy
half lazy
lazy=$pid
answers 0 "^$pid moved: pid [0-9]+: frozen.*runs after .* requests" telefork move --lazy "$pid" "$real"
pids+=("$(sed -n 's/.*: pid \([0-9]*\): .*/\1/p' "$tmp/out")")
! grep -q 'cannot wait for memory' "$tmp/err" || fail "all of it went first"
wait "$lazy" && fail "the original lives" || [ $? = 137 ] || fail "the original ended by itself"
kill "$sshd"
wait "$sshd" || true
finished real
finished lazy
echo "ssh: ok"
