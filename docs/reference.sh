#!/bin/sh
# SPDX-License-Identifier: MIT
# reference.sh TELEBED write|check: docs/testbed/reference.md is what `telebed schema` prints.
set -eu
telebed=$1 what=$2 page=docs/testbed/reference.md
new=$(mktemp)
trap 'rm -f "$new"' EXIT
"$telebed" schema >"$new.schema"
awk -v from="$new.schema" '
	/^<!-- end -->/ { while ((getline line < from) > 0) print line; print ""; inside = 0 }
	!inside { print }
	/^<!-- telebed schema -->/ { inside = 1 }' "$page" >"$new"
rm -f "$new.schema"
case $what in
write) cat "$new" >"$page" ;;
check) diff "$page" "$new" || {
	echo "$page is not what telebed schema says: make docs" >&2
	exit 1
} ;;
esac
