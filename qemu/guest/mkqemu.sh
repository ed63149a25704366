#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkqemu.sh OUT CACHEDIR LOCK SUITE
#
# Makes OUT/qemu-system-x86_64-newer and OUT/qemu-system-aarch64-newer: QEMU of Debian's SUITE beside the system's
# own, which stays as it is, with all the libraries that it was made for; and OUT/inputs, the list of its packages.
# LOCK has them, under the kind "qemu" (inputs.sh). They are unpacked in CACHEDIR/qemu-HASH, HASH being that of the
# list; a second call unpacks nothing.

set -eu

die()
{
	echo "mkqemu.sh: $*" >&2
	exit 1
}

[ $# -eq 4 ] || die "usage: mkqemu.sh OUT CACHEDIR LOCK SUITE"
out=$1 cachedir=$2 lock=$3 suite=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

sh "$(dirname "$0")/inputs.sh" take "$lock" "$cachedir" "$work/debs" qemu "$(uname -m)" "$suite" \
	qemu-system-x86 qemu-system-arm
mkdir -p "$out"
root=$cachedir/qemu-$(sha256sum "$work/debs/taken" | cut -c 1-16)
exec 9>"$root.lock"
flock 9
if [ ! -d "$root" ]; then
	rm -rf "$root.tmp"
	for deb in "$work"/debs/*.deb; do
		dpkg-deb -x "$deb" "$root.tmp"
	done
	rm -rf "$root.tmp/usr/share/doc" "$root.tmp/usr/share/man" "$root.tmp/usr/share/locale" "$root.tmp/usr/share/icons"
	mv "$root.tmp" "$root"
fi
# With all the libraries, and the loader, that it was made for.
for arch in x86_64 aarch64; do
	program=$out/qemu-system-$arch-newer
	cat >"$program.tmp" <<-END
		#!/bin/sh
		root='$root'
		for lib in "\$root"/lib/*-linux-gnu; do name=\${lib##*/}; done
		exec "\$root"/lib*/ld-linux-*.so.* --library-path "\$root/lib/\$name:\$root/usr/lib/\$name" \\
			"\$root/usr/bin/qemu-system-$arch" -L "\$root/usr/share/qemu" -L "\$root/usr/share/seabios" "\$@"
	END
	chmod 755 "$program.tmp"
	mv "$program.tmp" "$program"
done
cp "$work/debs/taken" "$out/inputs"
"$out/qemu-system-$(uname -m)-newer" --version | head -n 1
