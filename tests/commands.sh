#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# commands.sh BUILD [RUNNER]: what telefork(1) says on the command line: help, exit codes, errors that
# name the thing and the way out, inspect and restore --dry-run, standard input. Run by RUNNER
# (qemu-aarch64) the build is another architecture's; images of both are shown alike by either.
set -eu
build=$1 run=${2-}
read -ra runner <<<"$run"
tmp=$(mktemp -d)
pid=
trap 'if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; fi; rm -rf "$tmp"' EXIT
failed=0 out=$tmp/out

telefork() { "${runner[@]}" "$build/bin/telefork" "$@"; }
pad() { QEMU_STACK_SIZE=268435456 "${runner[@]}" "$build/bin/telefork-pad" "$@"; }
fail() {
	echo "FAILED: $*" >&2
	failed=1
}

# expect CODE TEXT COMMAND...: the exit code, and an extended regular expression in what it says.
expect() {
	local code=$1 text=$2 rc=0
	shift 2
	: >"$tmp/out"
	"$@" >"$out" 2>"$tmp/err" </dev/null || rc=$?
	[ "$rc" = "$code" ] || fail "$*: exit code $rc, not $code: $(head -3 "$tmp/err")"
	grep -Eq -e "$text" <<<"$(cat "$tmp/out" "$tmp/err" | tr '\n' ' ')" ||
		fail "$*: no \"$text\" in: $(head -5 "$tmp/out" "$tmp/err")"
}

# --- help, and the man page that goes with it ---

# described PROGRAM COMMAND: whether the manual has a section with every option of the --help in $tmp/out.
described() {
	local manual=docs/man/$1.1 option
	grep -q "^\.SS \"\?$1 $2" "$manual" || fail "$manual: no $2"
	sed -n "/^\.SS \"\?$1 $2/,/^\.S[SH] \"\?[^\"t]/p" "$manual" | tr -d "\\\\" >"$tmp/section"
	grep -o -e '--[a-z-]*' "$tmp/out" | sort -u | while read -r option; do
		case $option in -- | --help | --usage) continue ;; esac
		grep -q -e "$option" "$tmp/section" || echo "$2 $option"
	done >"$tmp/missing"
	[ ! -s "$tmp/missing" ] || fail "$manual does not describe $(cat "$tmp/missing")"
}

version=$(sed -n 's/^#define TELEFORK_VERSION "\(.*\)"/\1/p' core/telefork.h)
expect 0 "^telefork $version \(format [0-9]+\)" telefork --version
grep -q "^VERSION *:= $version\$" Makefile || fail "the Makefile has another version"
expect 0 'Commands:.*Exit codes:' telefork --help
commands=$(sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' "$tmp/out")
codes=$(sed -n 's/^\tX([A-Z_]*, \([0-9]*\), .*/\1/p' core/cmd/cmd.h)
[ "$(wc -w <<<"$commands")" -ge 5 ] || fail "commands: $commands"
[ "$(wc -w <<<"$codes")" -ge 11 ] || fail "exit codes: $codes"
for command in $commands; do
	expect 0 "Usage: telefork $command .*Exit codes:" telefork "$command" --help
	for code in $codes; do
		grep -Eq "^ *$code  " "$tmp/out" || fail "$command --help: no exit code $code"
	done
	described telefork "$command"
	expect 64 "telefork $command: unrecognized option" telefork "$command" --no-such-option
	case $command in
	jobs | settle) XDG_STATE_HOME=$tmp/state expect 0 "^ *\$" telefork "$command" ;;
	*) expect 64 'which' telefork "$command" ;;
	esac
done
if [ -x "build/$(uname -m)/bin/telebed" ]; then
	"build/$(uname -m)/bin/telebed" --help >"$tmp/bed" 2>&1 || true
	commands=$(sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' "$tmp/bed")
	for command in $commands; do
		expect 0 'Usage' "build/$(uname -m)/bin/telebed" "$command" --help
		described telebed "$command"
	done
fi
expect 64 '"frobnicate" is no command; there are serve .* \(see telefork --help\)' telefork frobnicate
expect 64 'which command' telefork
expect 64 'usage: telefork-pad' pad

exported=$(nm -D --defined-only "$build/lib/libtelefork.so" | awk '$2 == "T" { print $3 }' | sort)
shown=$(sh docs/man/make.sh docs/man/telefork.3 | sed -n 's/^\.SS \(tele[a-z_]*\)$/\1/p' | sort)
[ "$exported" = "$shown" ] || fail "telefork.3 describes $shown, the library has $exported"

# --- images ---

expect 66 'no-such-file: .*ENOENT' telefork inspect "$tmp/no-such-file"
expect 66 'no-such-file: No such file' telefork restore "$tmp/no-such-file"
expect 64 'one FILE only' telefork inspect a b
expect 64 'one FILE only' telefork restore a b
echo "no image" >"$tmp/garbage"
expect 65 "garbage: offset [0-9]+: [a-z-]+: " telefork inspect "$tmp/garbage"
expect 65 'garbage' telefork restore "$tmp/garbage"
qemu="qemu-x86_64"
if [ "$(uname -m)" = x86_64 ]; then qemu=; fi
$qemu build/x86_64/probes/hop-static "$tmp/x86_64.tf"
qemu-aarch64 build/aarch64/probes/hop-static "$tmp/aarch64.tf"
for a in x86_64 aarch64; do
	image=$tmp/$a.tf
	for options in '' --json --registers; do
		# shellcheck disable=SC2086 # an option or nothing
		telefork inspect $options "$image" >"$tmp/here"
		# shellcheck disable=SC2086
		$qemu build/x86_64/bin/telefork inspect $options "$image" >"$tmp/x86_64"
		cmp "$tmp/here" "$tmp/x86_64" || fail "inspect $options $a: other words from another build"
	done
	telefork inspect "$image" >"$tmp/here"
	for text in "$a process" '^mappings' '\[stack\]' '^  tid ' ' at 0x[0-9a-f]* in [a-z_]*+0x' ' => 0x'; do
		grep -q -e "$text" "$tmp/here" || fail "inspect $a: no \"$text\""
	done
	case $a in
	x86_64) names='rax r15 rip rflags fs_base mxcsr' ;;
	aarch64) names='x0 x30 pc nzcv tpidr_el0 fpcr' ;;
	esac
	for name in $names; do
		grep -Eq "(^| ) $name +[0-9a-f]+" "$tmp/here" || fail "inspect $a: no register $name"
	done
	# Cut, and damaged in the head: refused with the place.
	head -c 20000 "$image" >"$tmp/cut"
	expect 65 "cut: offset [0-9]+" telefork inspect "$tmp/cut"
	expect 65 "cut: " telefork restore "$tmp/cut"
	out=/dev/full expect 74 'standard output' telefork inspect "$image"
done
for color in '' 1; do
	NO_COLOR=$color script -qec "$run $build/bin/telefork inspect $tmp/x86_64.tf" "$tmp/tty" >/dev/null
	if grep -q $'\033' "$tmp/tty"; then seen=; else seen=1; fi
	[ "$seen" = "$color" ] || fail "NO_COLOR=$color is not heeded"
done
if telefork inspect "$tmp/x86_64.tf" | grep -q $'\033'; then fail "colours into a pipe"; fi

# --- restore ---

case $build in *aarch64*) mine=aarch64 other=x86_64 ;; *) mine=x86_64 other=aarch64 ;; esac
expect 65 "$other.tf: architecture: the process is $other, this receiver is $mine" \
	pad restore "$tmp/$other.tf"
expect 0 '^0	.*mmap\(0x[0-9a-f]+, [0-9x a-f]+, .*\) = 0x.*; stack.*fill\(.*; memory.*barrier\(.*rt_sigreturn\(0x[0-9a-f]+\)' \
	pad restore --dry-run "$tmp/$mine.tf"
[ "$(cut -f 1 "$tmp/out")" = "$(seq 0 $(($(wc -l <"$tmp/out") - 1)))" ] || fail "steps are not numbered"
out=/dev/full expect 74 'standard output' pad restore --dry-run "$tmp/$mine.tf"
# comes HOW VERDICT: the process says that it found everything.
comes() {
	grep -q '^ok' <<<"$2" || fail "restore $1: $2"
}
comes FILE "$(pad restore "$tmp/$mine.tf" 2>&1)"
comes "- from a file" "$(pad restore - 2>&1 <"$tmp/$mine.tf")"
comes "- from a pipe" "$("${runner[@]}" "$build/probes/hop-static" - | pad restore - 2>&1)"
if tail -c +1 "$tmp/$mine.tf" | pad restore - 2>"$tmp/err"; then fail "a file through a pipe"; fi
grep -q 'a saved image has to be a file' "$tmp/err" || fail "a file through a pipe: $(cat "$tmp/err")"
expect 74 'standard input: the other side closed' pad restore -

# --- serve ---

expect 64 'tcp://127.0.0.1:0: .*--token-file FILE, or say --insecure' pad serve tcp://127.0.0.1:0
expect 69 'address "gopher://x": this scheme is not known \(tcp://host:port, unix:path' pad serve gopher://x
expect 69 'address "tcp://x": a port is missing' pad serve --insecure tcp://x
expect 69 'no address of a socket' pad serve "$tmp/file"
expect 66 'no-token: ENOENT' pad serve --token-file "$tmp/no-token" tcp://127.0.0.1:0
: >"$tmp/empty"
expect 64 'empty: a token has 1 to 4096 bytes' pad serve --token-file "$tmp/empty" tcp://127.0.0.1:0
expect 64 '1 to 4096' pad serve --max-jobs 0 unix:"$tmp/s"
expect 64 'at least 1' pad serve --max-memory x unix:"$tmp/s"
expect 69 'say --once' pad serve -
expect 69 'standard input is no socket' pad serve --once -
echo secret >"$tmp/token"
# once CODE TOKEN: a receiver for one process, and how it ends.
once() {
	local rc=0 address
	rm -f "$tmp/address"
	mkfifo "$tmp/address"
	pad serve --once --token-file "$tmp/token" unix:"$tmp/socket" >"$tmp/address" 2>"$tmp/err" &
	pid=$!
	read -r address <"$tmp/address"
	"${runner[@]}" "$probe" "$address" --token "$2" >"$tmp/said" 2>&1 || true
	wait $pid || rc=$?
	pid=
	[ "$rc" = "$1" ] || fail "serve --once: exit code $rc, not $1: $(cat "$tmp/said" "$tmp/err")"
}
probe=$build/probes/hop-static
once 0 secret
once 77 wrong
# A name that commands a terminal is shown, not obeyed.
probe=$tmp/$'red\033[31m'
cp "$build/probes/hop-static" "$probe"
once 0 secret
if grep -q $'\033' "$tmp/err" || ! grep -Fq 'red\x1b[31m' "$tmp/err"; then fail "not safe: $(cat "$tmp/err")"; fi
# shellcheck disable=SC2016 # perl's own variables
accept='use IO::Socket::UNIX; my $l = IO::Socket::UNIX->new(Local => shift, Listen => 1) or die; $| = 1;
	print "ready\n"; my $c = $l->accept; open STDIN, "<&", $c or die; exec @ARGV'
mkfifo "$tmp/ready"
QEMU_STACK_SIZE=268435456 perl -e "$accept" "$tmp/accepted" "${runner[@]}" "$build/bin/telefork-pad" serve --once - \
	>"$tmp/ready" 2>"$tmp/err" &
pid=$!
read -r _ <"$tmp/ready"
"${runner[@]}" "$build/probes/hop-static" unix:"$tmp/accepted" >"$tmp/said" 2>&1 ||
	fail "serve --once -: $(cat "$tmp/said" "$tmp/err")"
wait $pid || fail "serve --once -: exit code $?"
pid=

# --- run ---

if [ "$mine" = x86_64 ]; then
	expect 0 'x86-64-v2 .*x86-64-v3 .*\(default\)' telefork run --list-baselines
	expect 69 'no baseline is called "i486"; there are x86-64 x86-64-v2' telefork run -b i486 true
	expect 127 'no-such: No such file' telefork run -- "$tmp/no-such"
	expect 126 'token: Permission denied' telefork run -- "$tmp/token"
	expect 3 '' telefork run sh -c 'exit 3'
	# shellcheck disable=SC2016 # for the shell that is run
	expect 0 'GLIBC_TUNABLES=glibc.malloc.perturb=1:glibc.cpu.hwcaps=-.*-AVX512F,.*,-RDPID:glibc.x=1 $' \
		env GLIBC_TUNABLES=glibc.malloc.perturb=1:glibc.cpu.hwcaps=-RDPID:glibc.x=1 "${runner[@]}" \
		"$build/bin/telefork" run sh -c 'echo GLIBC_TUNABLES=$GLIBC_TUNABLES'
else
	expect 69 'start the program on the lesser machine, or under qemu-aarch64 -cpu MODEL' telefork run true
fi
[ $failed = 0 ] && echo "commands: ok"
