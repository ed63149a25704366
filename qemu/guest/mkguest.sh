#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkguest.sh ARCH OUTDIR AGENT CACHEDIR ROOT [KERNEL]
#
# Makes OUTDIR/kernel and OUTDIR/initramfs of a guest for ARCH (x86_64 or aarch64): Debian's
# cloud kernel, the modules for virtio-serial and virtio-net, the static program AGENT as
# /init, and ROOT, a cpio archive of Debian's programs (mkroot.sh). The kernel's package is
# unpacked in CACHEDIR; a second call downloads nothing. The result depends only on its inputs:
# entries sorted, times zero. KERNEL is another package, out of bookworm-backports.

set -eu

die()
{
	echo "mkguest.sh: $*" >&2
	exit 1
}

[ $# -eq 5 ] || [ $# -eq 6 ] || die "usage: mkguest.sh ARCH OUTDIR AGENT CACHEDIR ROOT [KERNEL]"
arch=$1 outdir=$2 agent=$3 cachedir=$4 programs=$5 other=${6:-}

case $arch in
x86_64)
	debarch=amd64
	meta=linux-image-cloud-amd64
	;;
aarch64)
	debarch=arm64
	meta=linux-image-cloud-arm64
	;;
*)
	die "unknown architecture '$arch' (known: x86_64 aarch64)"
	;;
esac

[ -f "$agent" ] || die "$agent: no such agent; build it first (gcc -static, for $arch)"
for tool in apt-get apt-cache dpkg-deb cpio flock; do
	command -v $tool >/dev/null || die "$tool is missing (packages apt, dpkg, cpio, util-linux)"
done

# In load order, dependencies first. A module that is not in the package is built in.
modules="net/core/failover drivers/virtio/virtio_ring drivers/virtio/virtio
	drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci_legacy_dev
	drivers/virtio/virtio_pci drivers/net/net_failover drivers/net/virtio_net
	drivers/char/virtio_console"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# apt for the suite of a newer kernel, which the system need not know: lists of its own.
backports()
{
	tool=$1
	shift
	"$tool" -o Dir::Etc::sourcelist="$work/sources" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" \
		-o APT::Architectures::="$debarch" -o APT::Sandbox::User=root "$@"
}

make_backports()
{
	mkdir -p "$work/lists/partial" "$work/cache"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
		"http://deb.debian.org/debian bookworm-backports main" >"$work/sources"
	backports apt-get -q update >"$work/apt.log" 2>&1 ||
		die "bookworm-backports: $(tail -n 3 "$work/apt.log")"
	meta=$other
	apt=backports
}

# The package that the meta package depends on, as "linux-image-6.1.0-56-cloud-amd64".
kernel_package()
{
	$apt apt-cache depends "$meta:$debarch" |
		sed -n 's/^ *Depends: \(linux-image-[0-9][^:]*\).*$/\1/p' | head -n 1
}

# Unpack the kernel package into $unpacked unless that is there already.
fetch_kernel()
{
	mkdir -p "$cachedir/kernels"
	unpacked=$cachedir/kernels/$debarch-${other:-default}
	exec 9>"$unpacked.lock"
	flock 9
	if [ -d "$unpacked" ]; then
		return
	fi
	apt=
	[ -z "$other" ] || make_backports
	package=$(kernel_package)
	[ -n "$package" ] || die "apt knows no $meta:$debarch: 'dpkg --add-architecture" \
		"$debarch && apt-get update' makes it known"
	mkdir "$work/deb"
	(cd "$work/deb" && $apt apt-get -q -o APT::Sandbox::User=root download "$package:$debarch") \
		>"$work/apt.log" 2>&1 || {
		cat "$work/apt.log" >&2
		die "download of $package:$debarch failed; 'apt-get update' may be needed"
	}
	rm -rf "$unpacked.tmp"
	dpkg-deb -x "$work"/deb/*.deb "$unpacked.tmp"
	rm -rf "$unpacked.tmp/usr/share"
	mv "$unpacked.tmp" "$unpacked"
}

# Decompress $1 into $2 by its magic number.
plain()
{
	case $(head -c 2 "$1" | od -An -tx1 | tr -d ' \n') in
	1f8b) gzip -dc "$1" >"$2" ;;
	fd37) xz -dc "$1" >"$2" ;;
	28b5) zstd -qdc "$1" >"$2" ;;
	*) cp "$1" "$2" ;;
	esac
}

add_modules()
{
	from=$(echo "$unpacked"/lib/modules/*/kernel)
	[ -d "$from" ] || from=$(echo "$unpacked"/usr/lib/modules/*/kernel)
	[ -d "$from" ] || die "$unpacked: no modules in the kernel package"
	: >"$root/etc/modules.list"
	for module in $modules; do
		for file in "$from/$module.ko" "$from/$module.ko.xz" "$from/$module.ko.zst"; do
			[ -f "$file" ] || continue
			name=$(basename "$module").ko
			plain "$file" "$root/lib/modules/$name"
			echo "/lib/modules/$name" >>"$root/etc/modules.list"
			break
		done
	done
}

make_root()
{
	umask 022
	for dir in proc sys dev tmp run etc lib/modules; do
		mkdir -p "$root/$dir"
	done
	cp "$agent" "$root/init"
	add_modules
	echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
	echo 'root:x:0:' >"$root/etc/group"
	echo '127.0.0.1 localhost' >"$root/etc/hosts"
	printf 'passwd: files\ngroup: files\nhosts: files\n' >"$root/etc/nsswitch.conf"
	chmod -R u=rwX,go=rX "$root"
	chmod 755 "$root/init"
	chmod 1777 "$root/tmp"
}

fetch_kernel
root=$work/root
mkdir -p "$root" "$outdir"
make_root

kernel=$(echo "$unpacked"/boot/vmlinuz-*)
[ -f "$kernel" ] || die "$unpacked: no kernel in the package"
if [ "$arch" = aarch64 ]; then
	plain "$kernel" "$work/kernel"
else
	cp "$kernel" "$work/kernel"
fi
find "$root" -exec touch -h -d @0 {} +
# The kernel unpacks one archive after the other.
cp "$programs" "$work/initramfs"
(cd "$root" && find . -print0 | LC_ALL=C sort -z |
	cpio -0 -o -H newc --reproducible --owner=0:0 --quiet) >>"$work/initramfs"
chmod 644 "$work/kernel" "$work/initramfs"
mv "$work/kernel" "$outdir/kernel.tmp.$$"
mv "$outdir/kernel.tmp.$$" "$outdir/kernel"
mv "$work/initramfs" "$outdir/initramfs.tmp.$$"
mv "$outdir/initramfs.tmp.$$" "$outdir/initramfs"
