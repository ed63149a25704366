#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkprogram.sh ARCH OUT CACHEDIR LOCK PACKAGE PROGRAM
#
# Makes OUT, a tar archive of the file PROGRAM of a Debian package and of the shared libraries that it needs, for
# ARCH: unpacked in the root of a guest it runs there. LOCK has the packages, under the kind PACKAGE (inputs.sh).

set -eu

die()
{
	echo "mkprogram.sh: $*" >&2
	exit 1
}

[ $# -eq 6 ] || die "usage: mkprogram.sh ARCH OUT CACHEDIR LOCK PACKAGE PROGRAM"
arch=$1 out=$2 cachedir=$3 lock=$4 package=$5 program=$6
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

sh "$(dirname "$0")/mkroot.sh" "$arch" "$work/root.cpio" "$cachedir" "$lock" "$package" busybox-static "$package"
mkdir "$work/root"
(cd "$work/root" && cpio -id --quiet <"$work/root.cpio")
[ -f "$work/root/$program" ] || die "$program is not in $package"

# The libraries of a file, then theirs.
: >"$work/files"
todo=$program
while [ -n "$todo" ]; do
	next=
	for file in $todo; do
		grep -qxF "$file" "$work/files" && continue
		echo "$file" >>"$work/files"
		for name in $(readelf -d "$work/root/$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
			found=$(cd "$work/root" && find usr lib -name "$name" | head -n 1)
			[ -n "$found" ] || die "$file needs $name, which is nowhere"
			next="$next $found"
		done
	done
	todo=$next
done
mkdir -p "$(dirname "$out")"
tar -C "$work/root" --dereference --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
	-cf "$out.tmp" -T "$work/files"
mv "$out.tmp" "$out"
