#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkroot.sh ARCH OUT CACHEDIR PACKAGE...
#
# Makes OUT, a cpio archive of Debian packages with all that they depend on, for ARCH (x86_64 or
# aarch64): behind an initramfs of mkguest.sh it makes a guest in which Debian's programs run.
# Packages are resolved as for an empty system and unpacked as they are, no maintainer script runs;
# busybox gives the commands that no package has. The archive stays in CACHEDIR: a second call
# downloads nothing.

set -eu

die()
{
	echo "mkroot.sh: $*" >&2
	exit 1
}

[ $# -ge 4 ] || die "usage: mkroot.sh ARCH OUT CACHEDIR PACKAGE..."
arch=$1 out=$2 cachedir=$3
shift 3

case $arch in
x86_64) debarch=amd64 ;;
aarch64) debarch=arm64 ;;
*) die "unknown architecture '$arch' (known: x86_64 aarch64)" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

key=$({ echo "$*"; cat "$0"; } | sha256sum | cut -c1-16)
cached=$cachedir/roots/$debarch-$key.cpio
mkdir -p "$cachedir/roots"
exec 9>"$cached.lock"
flock 9

# Into $work/debs. What this system has installed, and for which architecture, plays no part.
download()
{
	: >"$work/status"
	mkdir -p "$work/debs/partial"
	apt-get -q -y --no-install-recommends --download-only \
		-o APT::Architecture="$debarch" -o APT::Architectures::="$debarch" \
		-o Dir::State::status="$work/status" -o Dir::Cache::archives="$work/debs" \
		-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
		-o Debug::NoLocking=true -o APT::Sandbox::User=root \
		install "$@" >"$work/apt.log" 2>&1 || {
		cat "$work/apt.log" >&2
		die "download of $* for $debarch failed; 'apt-get update' may be needed"
	}
}

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

if [ ! -f "$cached" ]; then
	root=$work/root
	download "$@"
	unpack
	add_applets
	find "$root" -exec touch -h -d @0 {} +
	(cd "$root" && find . -print0 | LC_ALL=C sort -z |
		cpio -0 -o -H newc --reproducible --owner=0:0 --quiet) >"$cached.tmp"
	mv "$cached.tmp" "$cached"
fi
cp "$cached" "$out"
