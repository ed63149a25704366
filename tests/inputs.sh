#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# inputs.sh TELEBED: packages of guests are those that are pinned, out of an archive made here. What is not
# what it was is refused; what is gone gives way to the newest, and the run's report says so.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
telebed=$1
arch=$(uname -m)
debarch=$(dpkg --print-architecture)
inputs=$PWD/qemu/guest/inputs.sh

# package NAME VERSION [DEPENDS]: into the archive
package() {
	mkdir -p "$tmp/made/DEBIAN" "$tmp/made/usr" "$tmp/archive"
	echo "$1 $2" >"$tmp/made/usr/$1"
	printf 'Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: nobody\nDescription: test\n%s' \
		"$1" "$2" "$debarch" "${3:+Depends: $3
}" >"$tmp/made/DEBIAN/control"
	dpkg-deb -Znone -b "$tmp/made" "$tmp/archive/${1}_${2#*:}_$debarch.deb" >/dev/null
	rm -rf "$tmp/made"
}

# index: what apt reads of the archive
index() {
	local deb
	for deb in "$tmp"/archive/*.deb; do
		dpkg-deb -f "$deb"
		printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${deb##*/}" "$(stat -c %s "$deb")" \
			"$(sha256sum "$deb" | cut -d ' ' -f 1)"
	done >"$tmp/archive/Packages"
}

lock() {
	index
	printf '%s\n' "root $arch - tf-program" "6.1 $arch - linux-image-test" |
		sh "$inputs" newest >"$tmp/lock" 2>"$tmp/out" || fail "no lock was made"
}

# take CODE KIND NAME: out of the lock
take() {
	local code=0
	rm -rf "$tmp/taken"
	sh "$inputs" take "$tmp/lock" "$tmp/cache" "$tmp/taken" "$2" "$arch" - "$3" >"$tmp/out" 2>&1 || code=$?
	[ "$code" = "$1" ] || fail "exit code $code, not $1, of $2"
}

echo "deb [trusted=yes] file:$tmp/archive ./" >"$tmp/sources"
export TELEFORK_APT_SOURCES=$tmp/sources
package tf-program 1:1.0 tf-library
package tf-library 2.0
package linux-image-6.1.0-1-test 6.1.7-1
package linux-image-test 6.1.7 linux-image-6.1.0-1-test
lock

# Pinned is pinned, also when there is something newer; the second time nothing is asked of the archive.
package tf-program 1:1.5 tf-library
package linux-image-6.1.0-2-test 6.1.8-1 linux-modules-6.1.0-2-test
package linux-modules-6.1.0-2-test 6.1.8-1
package linux-image-test 6.1.8 linux-image-6.1.0-2-test
index
take 0 root tf-program
take 0 6.1 linux-image-test
mv "$tmp/archive" "$tmp/away"
take 0 6.1 linux-image-test
says "6.1 $debarch linux-image-6.1.0-1-test 6.1.7-1" "$tmp/taken/taken"
take 0 root tf-program
says "root $debarch tf-program 1:1.0" "$tmp/taken/taken"
says "root $debarch tf-library 2.0" "$tmp/taken/taken"
! grep -v '=$' "$tmp/taken/taken" || fail "something is not what was pinned"
mv "$tmp/away" "$tmp/archive"

# One that is not what it was: in the cache, or as it comes.
file=$tmp/cache/debs/tf-library_2.0_$debarch.deb
sum=$(sha256sum "$file" | cut -d ' ' -f 1)
printf x >>"$file"
take 1 root tf-program
says "$file: expected SHA-256 $sum"
says "got $(sha256sum "$file" | cut -d ' ' -f 1); remove the file"
rm "$file"
sed -i "s/$sum/${sum//[0-7]/8}/" "$tmp/lock"
take 1 root tf-program
says "make guests-update"
sed -i "s/${sum//[0-7]/8}/$sum/" "$tmp/lock"
take 1 root tf-other
says "no tf-other"

# Gone: the newest comes, the rest stays.
rm -rf "$tmp/cache" "$tmp"/archive/tf-program_1.0_* "$tmp"/archive/linux-image-6.1.0-1-*
package tf-library 2.1
index
take 0 root tf-program
says "input tf-program is 1:1.5, not the pinned 1:1.0"
cp "$tmp/taken/taken" "$tmp/inputs"
take 0 6.1 linux-image-test
says " 6.1.7-1" "$tmp/taken/taken"
cat "$tmp/taken/taken" >>"$tmp/inputs"
rm "$tmp"/archive/linux-*
index
rm -rf "$tmp/cache"
take 1 6.1 linux-image-test
says "apt knows no linux-image-test"

# The lock moves on, with all parts of a kernel.
package linux-image-6.1.0-2-test 6.1.8-1 linux-modules-6.1.0-2-test
package linux-modules-6.1.0-2-test 6.1.8-1
package linux-image-test 6.1.8 linux-image-6.1.0-2-test
lock
says "root $debarch tf-library 2.1" "$tmp/lock"
says "6.1 $debarch linux-image-6.1.0-2-test 6.1.8-1" "$tmp/lock"
says "6.1 $debarch linux-modules-6.1.0-2-test 6.1.8-1" "$tmp/lock"

# The report of a run says it; the guest itself is not needed for that.
mkdir -p "$tmp/build/$arch/bin" "$tmp/build/guest/$arch" "$tmp/tests/scenarios"
cp "$telebed" "$tmp/build/$arch/bin/telebed"
mv "$tmp/inputs" "$tmp/build/guest/$arch/inputs"
echo 'probe = "hop"; tier = "system";' >"$tmp/tests/scenarios/one.conf"
"$tmp/build/$arch/bin/telebed" run one --json "$tmp/json" --out "$tmp/run" >"$tmp/out" 2>&1 || true
says "# input tf-program is 1:1.5, not the pinned 1:1.0"
says "# input linux-image-6.1.0-2-test is 6.1.8-1, not the pinned 6.1.7-1"
says "# input linux-modules-6.1.0-2-test is 6.1.8-1, not the pinned"
[ "$(grep -c '# input' "$tmp/out")" = 3 ] || fail "more was said than that"
says '"pinned": "6.1.7-1"' "$tmp/json"

# Of the newer QEMU, where a machine has it.
mkdir "$tmp/build/qemu"
echo "qemu $debarch qemu-system-test 10.1 0 10.0" >"$tmp/build/qemu/inputs"
"$tmp/build/$arch/bin/telebed" run one --out "$tmp/run" >"$tmp/out" 2>&1 || true
! grep -F qemu-system-test "$tmp/out" || fail "no machine has that QEMU"
echo "probe = \"hop\"; machine = \"$arch-qemu10\";" >"$tmp/tests/scenarios/newer.conf"
"$tmp/build/$arch/bin/telebed" run newer --out "$tmp/run" >"$tmp/out" 2>&1 || true
says "# input qemu-system-test is 10.1, not the pinned 10.0"
echo "ok: pinned, refused and replaced inputs"
