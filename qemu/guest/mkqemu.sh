#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkqemu.sh OUT CACHEDIR SUITE
#
# Makes OUT/qemu-system-x86_64-newer and OUT/qemu-system-aarch64-newer: QEMU of Debian's SUITE beside the system's
# own, which stays as it is. Packages are resolved as for an empty system and unpacked in CACHEDIR/qemu-SUITE; a
# second call downloads nothing.

set -eu

die()
{
	echo "mkqemu.sh: $*" >&2
	exit 1
}

[ $# -eq 3 ] || die "usage: mkqemu.sh OUT CACHEDIR SUITE"
out=$1 cachedir=$2 suite=$3
root=$cachedir/qemu-$suite
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

download()
{
	mkdir -p "$work/lists/partial" "$work/debs/partial"
	: >"$work/status"
	for s in "$suite" "${suite%-backports}"; do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
			"http://deb.debian.org/debian $s main"
	done >"$work/sources"
	set -- -q -y --no-install-recommends --download-only -t "$suite" \
		-o Dir::Etc::sourcelist="$work/sources" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
		-o Dir::Cache="$work" -o Dir::Cache::archives="$work/debs" \
		-o Debug::NoLocking=true -o APT::Sandbox::User=root
	if ! apt-get "$@" update >"$work/apt.log" 2>&1 ||
		! apt-get "$@" install qemu-system-x86 qemu-system-arm >>"$work/apt.log" 2>&1; then
		tail -n 5 "$work/apt.log" >&2
		die "download of qemu-system-x86 and qemu-system-arm of $suite failed"
	fi
}

mkdir -p "$cachedir" "$out"
exec 9>"$root.lock"
flock 9
if [ ! -d "$root" ]; then
	download
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
"$out/qemu-system-$(uname -m)-newer" --version | head -n 1
