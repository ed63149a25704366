#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# hosts.sh BUILD container          telebed as an ordinary user, with a container's default filter of system calls,
#                                   without huge pages and without /dev/kvm: tiers native and user
# hosts.sh BUILD container-guests   the same with a QEMU machine, whose template that user makes
# hosts.sh BUILD telebed            telebed inside a machine whose kernel counts promised memory, has Yama's 1 and
#                                   no huge pages (docs/testbed/hosts.md)
# hosts.sh BUILD machine ARCH       telefork inside such a machine
# Where it is no root the first two are what the user is.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$1 what=$2 arch=${3-}
user=1000

# A folder of the user's, in which the project is for the time of this test.
container_begin() {
	if [ "$(id -u)" = 0 ] && [ -z "${HOSTS_BOUND-}" ]; then
		# A way that leads through nobody's private folder.
		rm -rf "$tmp"
		HOSTS_BOUND=1 exec unshare --mount -- "$BASH" "$0" "$build" "$what"
	fi
	mkdir "$tmp/home" "$tmp/telefork"
	chmod 755 "$tmp"
	if [ "$(id -u)" = 0 ]; then
		tidy() { umount -l "$tmp/telefork"; }
		mount --bind "$PWD" "$tmp/telefork"
		chown "$user" "$tmp/home"
		cd "$tmp/telefork"
	fi
	export HOME=$tmp/home TMPDIR=$tmp/home XDG_STATE_HOME=$tmp/home/state XDG_CONFIG_HOME=$tmp/home
	export TELEFORK_CACHE=$tmp/home/cache
}

contained() { "$build/tests/tools/container" "$user" "$@"; }

container() {
	container_begin
	expect 0 contained cat /proc/self/status
	grep -q "^Seccomp:.2$" "$tmp/out" || fail "no filter"
	grep -q "^CapEff:.0*$" "$tmp/out" || fail "an ordinary user has no capabilities"
	! contained unshare -U true 2>/dev/null || fail "the filter does not hold"
	expect 0 contained "$build/bin/telebed" machines "$(uname -m)-kvm" aarch64-user
	says "no KVM here"
	# A program saves and sends itself, also under an emulator; nobody may look at it from outside.
	expect 0 contained "$build/bin/telebed" run host return foreign --filter "-static.$(uname -m).native" \
		--filter "primes.py-move.$(uname -m).native" --filter hop-static.x86_64.user.tcp \
		--filter hop-static.aarch64.user.tcp --jobs 1 --seed 1 --out "$tmp/home/run"
	says "ok 1 - "
	grep -q "primes.py-move.*native.* # SKIP .*telebed has system call filters" "$tmp/out" ||
		fail "what cannot be looked at from outside is skipped, with the reason"
	! grep -q "^not ok" "$tmp/out" || fail "a cell"
	[ "$(grep -c "^ok .*\.user\..* A -> B:" "$tmp/out")" = 2 ] || fail "no cells under an emulator"
	[ ! -e "$tmp/home/run" ] || fail "left: $(find "$tmp/home/run")"
	expect 69 contained "$build/bin/telebed" torture --steps 1
	says "telebed has system call filters"
	[ "$(id -u)" = 0 ] || return 0
	# As if the kernel counted what it promises, which a limit counts the same: QEMU may say nothing.
	echo 2 >"$tmp/strict"
	mount --bind "$tmp/strict" /proc/sys/vm/overcommit_memory
	expect 69 prlimit --data=200000000 "$build/bin/telebed" exec "$(uname -m)" -- true
	says "does not start"
	says "vm.overcommit_memory is 2 here, and the machine's memory"
	folder=$(grep -o '/tmp/telebed\.[A-Za-z0-9]*' "$tmp/out")
	[ -s "$(echo "$folder"/*/cmdline)" ] || fail "what is left of it is not there"
	rm -rf "$folder"
}

container_guests() {
	container_begin
	expect 0 contained "$build/bin/telebed" run guests --filter "hop-static.$(uname -m)" --seed 1 \
		--out "$tmp/home/run"
	says "ok 1 - guests/hop-static"
	[ -s "$(echo "$TELEFORK_CACHE"/templates/*/state)" ] || fail "no template of the user's own"
}

# Yama 1; a kernel that promises MIB more, and no more; no huge pages.
harden() {
	local promised
	echo 1 >/proc/sys/kernel/yama/ptrace_scope
	promised=$(sed -n 's/^Committed_AS: *\([0-9]*\) kB/\1/p' /proc/meminfo)
	echo $((promised + $1 * 1024)) >/proc/sys/vm/overcommit_kbytes
	echo 2 >/proc/sys/vm/overcommit_memory
	echo never >/sys/kernel/mm/transparent_hugepage/enabled
}

# start AS...: a program that checks itself.
start() {
	rm -f "$tmp/end"
	begin_ready program "$@" "$build/probes/outside-static" "$tmp/end"
}
# finish: it is right all the same.
finish() {
	: >"$tmp/end"
	wait "$pid" || fail "the program: exit code $?"
	grep -q '^right' "$tmp/program.out" || fail "the program is not right"
}

guest() {
	chmod 755 "$tmp"
	harden 96
	# By itself: an ordinary user, in a container or not.
	expect 0 contained bash tests/journey.sh unix "$build" hop-static
	# From outside: with room for the fork and for the copy, and a process that wants more than is promised to both.
	expect 0 bash tests/crew.sh "$build" crew-static 4
	expect 65 bash tests/outside.sh "$build" copy static
	says "stands still until all is written: no fork of it can be made"
	says "vm.overcommit_memory here is 2"
	# Who may not is told why, and what helps; the program goes on.
	start setpriv --reuid $user --clear-groups
	expect 78 setpriv --reuid $user --clear-groups "$build/bin/telefork" check "$pid"
	says "access: process $pid: "
	says "kernel.yama.ptrace_scope"
	expect 78 setpriv --reuid $user --clear-groups "$build/bin/telefork" dump "$pid" -o /tmp/none.tf
	says "kernel.yama.ptrace_scope"
	[ ! -e /tmp/none.tf ] || fail "an image of nothing"
	finish
	# With a filter: nobody can read it who has it, too.
	start "$build/tests/tools/container" "$user" # not the function: this shell would have its pid
	expect 78 contained "$build/bin/telefork" check "$pid"
	says "seccomp: process $pid: "
	says "outside of a container"
	finish
	# More than the kernel promises: said before anything is made.
	echo 0 >/proc/sys/vm/overcommit_memory
	start env
	expect 0 "$build/bin/telefork" dump "$pid" -o "$tmp/image.tf"
	finish
	harden 8
	expect 65 "$build/bin/telefork" restore "$tmp/image.tf"
	says "vm.overcommit_memory here is 2"
}

machine() {
	local files=() there=build/$arch
	for file in tests/{hosts,journey,crew,outside,common}.sh "$there"/bin/telefork{,-pad} \
		"$there"/probes/{hop,crew,outside}-static "$there/tests/tools/container"; do
		files+=(--with "$file")
	done
	"$build/bin/telebed" exec "${files[@]}" "$arch" -- bash tests/hosts.sh "$there" guest
}

# What telebed needs, in a machine with memory.
telebed_inside() {
	local files=() libraries=$build/hosts
	rm -rf "$libraries"
	mkdir -p "$libraries"
	ldd "$build/bin/telebed" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | xargs cp -Lt "$libraries"
	for file in "$libraries"/* tests/{hosts,common}.sh tests/scenarios/{host,return,foreign}.conf "$build"/bin/tele* \
		"$build"/probes/{hop,clib}-static tests/programs/primes.py{,.out} docs/report.schema.json; do
		files+=(--with "$file")
	done
	"$build/bin/telebed" exec "${files[@]}" "$(uname -m)-large" -- bash tests/hosts.sh "$build" inside
	rm -rf "$libraries"
}

inside() {
	harden 256
	chmod 755 "$tmp"
	mkdir "$tmp/home"
	chown $user "$tmp/home"
	# One for each processor, as on every host.
	expect 0 setpriv --reuid $user --clear-groups env HOME="$tmp/home" TMPDIR="$tmp/home" \
		XDG_STATE_HOME="$tmp/home/state" LD_LIBRARY_PATH="$PWD/$build/hosts" \
		"$build/bin/telebed" run host return foreign --filter static.x86_64.native \
		--filter static.aarch64.native \
		--filter "primes.py-move.$(uname -m).native" --seed 1
	cat "$tmp/out"
	[ "$(grep -c '^ok .*-static.* A -> B' "$tmp/out")" -ge 3 ] || fail "not all of them"
	says "kernel.yama.ptrace_scope is 1 here"
}

case $what in
container | guest | inside | machine) "$what" ;;
container-guests) container_guests ;;
telebed) telebed_inside ;;
esac
echo "ok: $what"
