#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkroot.sh ARCH OUT CACHEDIR LOCK KIND PACKAGE...
#
# Makes OUT, a cpio archive of Debian packages with all that they depend on, for ARCH (x86_64 or
# aarch64): behind an initramfs of mkguest.sh it makes a guest in which Debian's programs run; and
# OUT.inputs, the list of what is in it. LOCK says which versions, for KIND (inputs.sh). Packages are unpacked as
# they are, no maintainer script runs; busybox gives the commands that no package has.

set -eu

die()
{
	echo "mkroot.sh: $*" >&2
	exit 1
}

[ $# -ge 6 ] || die "usage: mkroot.sh ARCH OUT CACHEDIR LOCK KIND PACKAGE..."
arch=$1 out=$2 cachedir=$3 lock=$4 kind=$5
shift 5

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

unpack()
{
	umask 022
	mkdir "$root"
	for deb in "$work"/debs/*.deb; do
		dpkg-deb -x "$deb" "$root"
	done
	for unused in usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/lintian \
		usr/share/bash-completion usr/share/perl5 \
		"usr/lib/*/gconv" var dev proc sys run tmp; do
		# shellcheck disable=SC2086 # a pattern
		rm -rf "${root:?}"/$unused
	done
}

# Links for the applets that are nobody else's.
add_applets()
{
	run=
	[ "$arch" = "$(uname -m)" ] || run=qemu-$arch
	$run "$root/bin/busybox" --list >"$work/applets"
	[ -s "$work/applets" ] || die "busybox has no applets"
	while read -r applet; do
		[ -e "$root/bin/$applet" ] || [ -e "$root/usr/bin/$applet" ] ||
			ln -s busybox "$root/bin/$applet"
	done <"$work/applets"
}

sh "$(dirname "$0")/inputs.sh" take "$lock" "$cachedir" "$work/debs" "$kind" "$arch" - "$@"
root=$work/root
unpack
add_applets
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . -print0 | LC_ALL=C sort -z |
	cpio -0 -o -H newc --reproducible --owner=0:0 --quiet) >"$out.tmp"
cp "$work/debs/taken" "$out.inputs"
mv "$out.tmp" "$out"
