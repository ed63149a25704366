#!/bin/sh
# SPDX-License-Identifier: MIT
#
# inputs.sh take LOCK CACHEDIR OUT KIND ARCH SUITE NAME...
# inputs.sh newest <ROWS
#
# Debian packages that guests are made of, and the newer QEMU, pinned by version and SHA-256 in LOCK
# (inputs.lock). KIND is what they are for: a name that LOCK has. NAME... are packages, which come with all
# that they depend on; or the one package linux-image-... that depends on the newest kernel of a series,
# which comes with its parts alone. SUITE is "-" for what this system's apt knows, or the name of another one
# of Debian's; backports are taken with all that they depend on, from there or from what they are added to.
#
# take    fills the new folder OUT with the packages that LOCK has for KIND, and with "taken", a list
#         of them: kind, architecture, package, version, SHA-256, and "=" or the version that was
#         pinned. Packages stay in CACHEDIR/debs and are compared with LOCK each time. In the place
#         of a version that is no longer to be had comes the newest.
# newest  prints LOCK as it would be now, for the rows KIND ARCH SUITE NAME... of its standard input.
#
# TELEFORK_APT_SOURCES names a sources.list that is used instead of any SUITE: a mirror.

set -eu

die()
{
	echo "inputs.sh: $*" >&2
	exit 1
}

usage="usage: inputs.sh take LOCK CACHEDIR OUT KIND ARCH SUITE NAME... | newest <ROWS"
mode=${1:-}
case $mode,$# in
take,[89] | take,[1-9][0-9]*) lock=$2 debs=$3/debs out=$4 ;;
newest,1) ;;
*) die "$usage" ;;
esac
for tool in apt-get apt-cache sha256sum; do
	command -v $tool >/dev/null || die "$tool is missing (packages apt, coreutils)"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
: >"$work/status"
mkdir -p "$work/download" "$work/archives/partial"

# about KIND ARCH SUITE NAME...: what the rest is about
about()
{
	kind=$1 suite=$3
	case $2 in
	x86_64) debarch=amd64 ;;
	aarch64) debarch=arm64 ;;
	*) die "unknown architecture '$2' (known: x86_64 aarch64)" ;;
	esac
	kernel=
	case $4 in
	linux-image-*) kernel=yes ;;
	esac
	release=
	case $suite$kernel in
	*-backports) release=$suite ;;
	esac
	lists=$work/lists.$debarch$suite$kernel
	sources=$work/sources.$suite$kernel
	if [ -n "${TELEFORK_APT_SOURCES:-}" ]; then
		cp "$TELEFORK_APT_SOURCES" "$sources"
	elif [ "$suite" != - ]; then
		for s in $suite ${release:+"${suite%-backports}"}; do
			echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
				"http://deb.debian.org/debian $s main"
		done >"$sources"
	fi
}

# What this system has installed, and for which architecture, plays no part.
with_apt()
{
	tool=$1
	shift
	set -- -q -o APT::Architecture="$debarch" -o APT::Architectures::="$debarch" \
		-o APT::Sandbox::User=root -o Acquire::ForceHash=SHA256 \
		-o Dir::State::status="$work/status" -o Dir::Cache::archives="$work/archives" \
		-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Debug::NoLocking=true "$@"
	if [ -f "$sources" ]; then
		set -- -o Dir::Etc::sourcelist="$sources" -o Dir::Etc::sourceparts=- "$@"
	fi
	if [ -d "$lists" ]; then
		set -- -o Dir::State::lists="$lists" "$@"
		[ -z "$release" ] || set -- -o APT::Default-Release="$release" "$@"
	fi
	"$tool" "$@"
}

# Lists of our own, as the archive is now.
refresh()
{
	[ ! -d "$lists" ] || return 0
	mkdir -p "$lists/partial"
	with_apt apt-get update >"$work/log" 2>&1 ||
		die "apt-get update for $kind of $debarch: $(tail -n 3 "$work/log")"
}

# Lines of --print-uris: 'address' NAME_VERSION_ARCH.deb size SHA256:hash
parse_uris()
{
	awk '{ split($2, f, "_"); gsub("%3a", ":", f[2]); sub("SHA256:", "", $4); print f[1], f[2], $4 }'
}

# Package, version and hash of the newest; of all that SPEC... (NAME or NAME=VERSION) needs, or of a kernel.
newest_of()
{
	if [ -z "$kernel" ]; then
		with_apt apt-get -q -y --no-install-recommends --print-uris install "$@" |
			grep "^'" >"$work/uris" || return 1
	else
		package=$(with_apt apt-cache depends "$1" |
			sed -n 's/^ *Depends: \(linux-image-[0-9][^: ]*\).*$/\1/p' | head -n 1)
		[ -n "$package" ] || die "apt knows no $1 for $debarch"
		# From 7.0 on a kernel has parts.
		# shellcheck disable=SC2046 # names of packages
		with_apt apt-get -q --print-uris download "$package" $(with_apt apt-cache depends "$package" |
			sed -n 's/^ *Depends: \(linux-\(binary\|modules\)-[0-9][^: ]*\).*$/\1/p') |
			grep "^'" >"$work/uris" || return 1
	fi
	parse_uris <"$work/uris" | LC_ALL=C sort
}

newest()
{
	while read -r row; do
		# shellcheck disable=SC2086 # words
		set -- $row
		[ $# -ge 4 ] || die "'$row': expected KIND ARCH SUITE NAME..."
		about "$@"
		refresh
		shift 3
		newest_of "$@" >"$work/newest" || die "apt finds no way to have $* for $debarch"
		sed "s/^/$kind $debarch /" "$work/newest"
	done
}

file_of()
{
	echo "$debs/$1_$(echo "$2" | sed 's/:/%3a/g')_$debarch.deb"
}

# Of the rows in the file $1 those that are not in the cache.
missing()
{
	while read -r name version hash; do
		[ -f "$(file_of "$name" "$version")" ] || echo "$name $version $hash"
	done <"$1"
}

# Of the rows in the file $1 those whose version apt does not know.
gone()
{
	# shellcheck disable=SC2046 # names of packages
	with_apt apt-cache show $(cut -d ' ' -f 1 "$1") 2>/dev/null |
		awk '/^Package: /{ p = $2 } /^Version: /{ print p, $2 }' >"$work/known" || true
	while read -r name version hash; do
		grep -qxF "$name $version" "$work/known" || echo "$name $version $hash"
	done <"$1"
}

# The packages of the rows in the file $1, into the cache.
download()
{
	[ -s "$1" ] || return 0
	# shellcheck disable=SC2046 # names and versions of packages
	(cd "$work/download" && with_apt apt-get download $(sed 's/^\([^ ]*\) \([^ ]*\) .*/\1=\2/' "$1")) \
		>"$work/log" 2>&1 || return 1
	mkdir -p "$debs"
	while read -r name version _; do
		mv "$work/download/${name}_$(echo "$version" | sed 's/:/%3a/g')"_*.deb \
			"$(file_of "$name" "$version")"
	done <"$1"
}

# download, with lists as new as they can be before it gives up.
get()
{
	download "$1" && return 0
	refresh
	download "$1" || die "download for $kind of $debarch failed: $(tail -n 3 "$work/log")"
}

# What is taken instead of the rows in $work/want, of which those in $work/gone are no longer to be had.
replace()
{
	if [ -z "$kernel" ]; then
		# The rest stays where it is, if that can be.
		# shellcheck disable=SC2046 # names and versions of packages
		newest_of $(grep -vxFf "$work/gone" "$work/want" | sed 's/^\([^ ]*\) \([^ ]*\) .*/\1=\2/') \
			$(cut -d ' ' -f 1 "$work/gone") >"$work/newest" 2>/dev/null ||
			newest_of "$@" >"$work/newest" || die "apt finds no way to have $* for $debarch"
	else
		newest_of "$@" >"$work/newest" || die "apt finds no newest $* for $debarch"
	fi
	# What stays pinned keeps the hash of the lock.
	while read -r name version hash; do
		grep "^$name $version " "$work/want" || echo "$name $version $hash"
	done <"$work/newest" >"$work/instead"
	mv "$work/instead" "$work/want"
}

# The version of $1 in the lock; a kernel's packages have versions in their names.
pinned()
{
	awk -v kind="$kind" -v arch="$debarch" -v name="$1" -v kernel="$kernel" '
		function short(s) { return kernel ? substr(s, 1, match(s, /-[0-9]/)) : s }
		$1 == kind && $2 == arch && short($3) == short(name) { print $4 }' "$lock"
}

check()
{
	while read -r name version hash; do
		file=$(file_of "$name" "$version")
		is=$(sha256sum "$file" | cut -d ' ' -f 1)
		[ "$is" = "$hash" ] || die "$file: expected SHA-256 $hash ($lock), got $is;" \
			"remove the file if it is damaged; if the archive has another package under this" \
			"version now, make guests-update moves the lock"
		was=$(pinned "$name")
		[ "$was" != "$version" ] || was='='
		[ "$was" = '=' ] || echo "inputs.sh: input $name is $version, not the pinned" \
			"${was:-(none)}, which is no longer to be had" >&2
		echo "$kind $debarch $name $version $hash ${was:--}" >>"$out/taken"
		ln -s "$file" "$out/"
	done <"$work/want"
}

take()
{
	shift 3
	about "$@"
	shift 3
	[ -f "$lock" ] || die "$lock: no such file; make guests-update writes it"
	awk -v kind="$kind" -v arch="$debarch" '$1 == kind && $2 == arch { print $3, $4, $5 }' "$lock" \
		>"$work/want"
	[ -s "$work/want" ] || die "$lock: nothing for $kind of $debarch; make guests-update adds it"
	for name; do
		[ -n "$kernel" ] || grep -q "^$name " "$work/want" ||
			die "$lock: no $name for $debarch; make guests-update adds it"
	done
	mkdir -p "$debs" "$out"
	missing "$work/want" >"$work/missing"
	if [ -s "$work/missing" ]; then
		if [ -f "$sources" ]; then
			refresh
		fi
		gone "$work/missing" >"$work/gone"
		if [ -s "$work/gone" ]; then
			refresh
			gone "$work/missing" >"$work/gone"
		fi
		if [ -s "$work/gone" ]; then
			replace "$@"
			missing "$work/want" >"$work/missing"
		fi
		get "$work/missing"
	fi
	check
}

shift
"$mode" "$@"
