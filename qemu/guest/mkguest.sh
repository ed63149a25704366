#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkguest.sh ARCH OUTDIR AGENT CACHEDIR LOCK ROOT KERNEL SUITE PACKAGE
#
# Makes OUTDIR/kernel, OUTDIR/initramfs and OUTDIR/inputs of a guest for ARCH (x86_64 or aarch64):
# Debian's KERNEL of LOCK (SUITE and PACKAGE: see inputs.sh), the modules for virtio-serial and
# virtio-net, the static program AGENT as /init, and ROOT, a cpio archive of Debian's programs
# (mkroot.sh). The result depends only on its inputs, which OUTDIR/inputs lists: entries sorted, times
# zero. Where SUITE is "file", PACKAGE is a kernel's image, and MODULES in the environment the folder
# of its modules, if it needs any. ROOT may then be a folder, or "" (the agent alone).

set -eu

die()
{
	echo "mkguest.sh: $*" >&2
	exit 1
}

[ $# -eq 9 ] || die "usage: mkguest.sh ARCH OUTDIR AGENT CACHEDIR LOCK ROOT KERNEL SUITE PACKAGE"
arch=$1 outdir=$2 agent=$3 cachedir=$4 lock=$5 programs=$6 kernel=$7 suite=$8 package=$9

[ -f "$agent" ] || die "$agent: no such agent; build it first (gcc -static, for $arch)"
for tool in dpkg-deb cpio; do
	command -v $tool >/dev/null || die "$tool is missing (packages dpkg, cpio)"
done

# In load order, dependencies first. A module that is not in the package is built in.
modules="net/core/failover drivers/virtio/virtio_ring drivers/virtio/virtio
	drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci_legacy_dev
	drivers/virtio/virtio_pci drivers/net/net_failover drivers/net/virtio_net
	drivers/char/virtio_console drivers/block/brd"
# What CRIU asks the kernel for; its adapter loads them (harness/engines/criu).
criu_modules="lib/libcrc32c net/netfilter/nfnetlink net/netfilter/nf_tables net/ipv4/inet_diag
	net/ipv4/tcp_diag net/ipv4/udp_diag net/ipv4/raw_diag net/unix/unix_diag
	net/netlink/netlink_diag net/packet/af_packet_diag"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# A kernel of one's own: as if it came in a package.
own_kernel()
{
	[ -f "$package" ] || die "$package: no such kernel"
	mkdir -p "$unpacked/boot" "$unpacked/lib/modules/own/kernel" "$work/debs"
	cp "$package" "$unpacked/boot/vmlinuz-own"
	: >"$work/debs/taken"
	[ -z "${MODULES:-}" ] || cp -r "$MODULES/kernel/." "$unpacked/lib/modules/own/kernel"
}

# The root's archive; a folder becomes one.
own_root()
{
	[ -n "$programs" ] || : >"$work/root.cpio"
	[ ! -d "$programs" ] || (cd "$programs" && find . -print0 | LC_ALL=C sort -z |
		cpio -0 -o -H newc --reproducible --owner=0:0 --quiet) >"$work/root.cpio"
	[ ! -f "$work/root.cpio" ] || programs=$work/root.cpio
}

take_kernel()
{
	sh "$(dirname "$0")/inputs.sh" take "$lock" "$cachedir" "$work/debs" "$kernel" "$arch" "$suite" "$package"
	for deb in "$work"/debs/*.deb; do
		dpkg-deb -x "$deb" "$unpacked"
	done
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

# add_modules LIST MODULE...: LIST names those that are there, in their order.
add_modules()
{
	list=$root/etc/$1
	shift
	from=$(echo "$unpacked"/lib/modules/*/kernel)
	[ -d "$from" ] || from=$(echo "$unpacked"/usr/lib/modules/*/kernel)
	[ -d "$from" ] || die "$unpacked: no modules in the kernel package"
	: >"$list"
	for module; do
		for file in "$from/$module.ko" "$from/$module.ko.xz" "$from/$module.ko.zst"; do
			[ -f "$file" ] || continue
			name=$(basename "$module").ko
			plain "$file" "$root/lib/modules/$name"
			echo "/lib/modules/$name" >>"$list"
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
	# shellcheck disable=SC2086 # lists
	add_modules modules.list $modules
	# shellcheck disable=SC2086
	add_modules modules.criu $criu_modules
	echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
	echo 'root:x:0:' >"$root/etc/group"
	echo '127.0.0.1 localhost' >"$root/etc/hosts"
	printf 'passwd: files\ngroup: files\nhosts: files\n' >"$root/etc/nsswitch.conf"
	chmod -R u=rwX,go=rX "$root"
	chmod 755 "$root/init"
	chmod 1777 "$root/tmp"
}

unpacked=$work/unpacked
if [ "$suite" = file ]; then
	own_kernel
	own_root
else
	take_kernel
fi
root=$work/root
mkdir -p "$root" "$outdir"
make_root

kernel=$(echo "$unpacked"/boot/vmlinuz-*)
[ -f "$kernel" ] || kernel=$(echo "$unpacked"/usr/lib/modules/*/vmlinuz) # from 7.0 on
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
{
	cat "$work/debs/taken"
	[ ! -f "$programs.inputs" ] || cat "$programs.inputs"
} >"$outdir/inputs"
mv "$work/kernel" "$outdir/kernel.tmp.$$"
mv "$outdir/kernel.tmp.$$" "$outdir/kernel"
mv "$work/initramfs" "$outdir/initramfs.tmp.$$"
mv "$outdir/initramfs.tmp.$$" "$outdir/initramfs"
