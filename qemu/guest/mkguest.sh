#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkguest.sh ARCH OUTDIR AGENT CACHEDIR ROOT [SUITE KERNEL]
#
# Makes OUTDIR/kernel and OUTDIR/initramfs of a guest for ARCH (x86_64 or aarch64): Debian's
# cloud kernel, the modules for virtio-serial and virtio-net, the static program AGENT as
# /init, and ROOT, a cpio archive of Debian's programs (mkroot.sh). The kernel's package is
# unpacked in CACHEDIR; a second call downloads nothing. The result depends only on its inputs:
# entries sorted, times zero. KERNEL is another package, out of Debian's SUITE; where SUITE is "file",
# KERNEL is a kernel's image, and MODULES in the environment the folder of its modules, if it needs
# any. ROOT may then be a folder, or "" (the agent alone).

set -eu

die()
{
	echo "mkguest.sh: $*" >&2
	exit 1
}

[ $# -eq 5 ] || [ $# -eq 7 ] ||
	die "usage: mkguest.sh ARCH OUTDIR AGENT CACHEDIR ROOT [SUITE KERNEL]"
arch=$1 outdir=$2 agent=$3 cachedir=$4 programs=$5 suite=${6:-} other=${7:-}

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
# What CRIU asks the kernel for; its adapter loads them (harness/engines/criu).
criu_modules="lib/libcrc32c net/netfilter/nfnetlink net/netfilter/nf_tables net/ipv4/inet_diag
	net/ipv4/tcp_diag net/ipv4/udp_diag net/ipv4/raw_diag net/unix/unix_diag
	net/netlink/netlink_diag net/packet/af_packet_diag"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# apt for the suite of another kernel, which the system need not know: lists of its own.
elsewhere()
{
	tool=$1
	shift
	"$tool" -o Dir::Etc::sourcelist="$work/sources" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" \
		-o APT::Architectures::="$debarch" -o APT::Sandbox::User=root "$@"
}

make_elsewhere()
{
	mkdir -p "$work/lists/partial" "$work/cache"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
		"http://deb.debian.org/debian $suite main" >"$work/sources"
	elsewhere apt-get -q update >"$work/apt.log" 2>&1 || die "$suite: $(tail -n 3 "$work/apt.log")"
	meta=$other
	apt=elsewhere
}

# The package that the meta package depends on, as "linux-image-6.1.0-56-cloud-amd64".
kernel_package()
{
	$apt apt-cache depends "$meta:$debarch" |
		sed -n 's/^ *Depends: \(linux-image-[0-9][^:]*\).*$/\1/p' | head -n 1
}

# It, and from 7.0 on those that have its parts.
kernel_packages()
{
	echo "$1"
	$apt apt-cache depends "$1:$debarch" | sed -n 's/^ *Depends: \(linux-\(binary\|modules\)-[0-9][^:]*\).*$/\1/p'
}

# A kernel of one's own: as if it came in a package.
own_kernel()
{
	[ -f "$other" ] || die "$other: no such kernel"
	unpacked=$work/unpacked
	mkdir -p "$unpacked/boot" "$unpacked/lib/modules/own/kernel"
	cp "$other" "$unpacked/boot/vmlinuz-own"
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

# Unpack the kernel package into $unpacked unless that is there already.
fetch_kernel()
{
	mkdir -p "$cachedir/kernels"
	unpacked=$cachedir/kernels/$debarch-${other:-default}
	[ "$suite" != sid ] || unpacked=$unpacked-newest
	exec 9>"$unpacked.lock"
	flock 9
	if [ -d "$unpacked" ]; then
		return
	fi
	apt=
	[ -z "$other" ] || make_elsewhere
	package=$(kernel_package)
	[ -n "$package" ] || die "apt knows no $meta:$debarch: 'dpkg --add-architecture" \
		"$debarch && apt-get update' makes it known"
	mkdir "$work/deb"
	rm -rf "$unpacked.tmp"
	for part in $(kernel_packages "$package"); do
		(cd "$work/deb" && $apt apt-get -q -o APT::Sandbox::User=root download "$part:$debarch") \
			>"$work/apt.log" 2>&1 || {
			cat "$work/apt.log" >&2
			die "download of $part:$debarch failed; 'apt-get update' may be needed"
		}
		dpkg-deb -x "$work/deb/$part"_*.deb "$unpacked.tmp"
	done
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

if [ "$suite" = file ]; then
	own_kernel
	own_root
else
	fetch_kernel
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
mv "$work/kernel" "$outdir/kernel.tmp.$$"
mv "$outdir/kernel.tmp.$$" "$outdir/kernel"
mv "$work/initramfs" "$outdir/initramfs.tmp.$$"
mv "$outdir/initramfs.tmp.$$" "$outdir/initramfs"
