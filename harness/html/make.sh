#!/bin/sh
# SPDX-License-Identifier: MIT
# make.sh FOLDER: the page of a report out of page.html, page.css and page.js in FOLDER, to standard output.
# Only the two that are put in here may style and move it: their hashes stand in its policy.
set -eu
cd "$1"

# hash FILE: of an element's text, which begins behind the line of its tag.
hash() {
	# shellcheck disable=SC2059 # the format is the bytes
	env printf "$({ echo && cat "$1"; } | sha256sum | cut -c 1-64 | sed 's/../\\x&/g')" | base64
}

sed -e "s:@STYLE@:$(hash page.css):" -e "s:@SCRIPT@:$(hash page.js):" \
	-e '/^@page.css@$/{' -e 'r page.css' -e 'd' -e '}' \
	-e '/^@page.js@$/{' -e 'r page.js' -e 'd' -e '}' page.html
