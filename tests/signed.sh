#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# signed.sh BUILD COUNT [RUNNER]: captures the signed probe at COUNT seeded moments, among trees of
# functions that sign their return addresses; each image has to finish its work under other keys.
# Then it goes there and back, and returns at home through frames that were signed over there.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
build=$1 count=$2 inspect=build/$(uname -m)/bin/telefork
runner ${3+"$3"}
link=0 stack=0
# Other processes have other keys; 2 ** -7 is the chance that two make the same of one pointer.
keys=$(for ((i = 0; i < 8; i++)); do "${run[@]}" "$build/probes/signed-pie" x --keys; done | sort -u | wc -l)
signs=
case $(readelf -h "$build/probes/signed-pie") in *AArch64*) signs=1 ;; esac
# enough: moments; where they lie, is chance.
enough() {
	[ "$seed" -gt "$count" ] || return 1
	[ -z "$signs" ] || [ "$seed" -gt $((4 * count)) ] || [[ $stack -gt $count && $link -gt 0 ]]
}
for ((seed = 1; ; seed++)); do
	! enough || break
	"${run[@]}" "$build/probes/signed-pie" "$tmp/image.tf" --signal "$seed"
	[ "$("${receive[@]}" "$build/bin/telefork-pad" restore "$tmp/image.tf")" = ok ] || fail "moment $seed"
	"$inspect" inspect --json "$tmp/image.tf" >"$tmp/json"
	link=$((link + $(grep -o link-register "$tmp/json" | wc -l)))
	stack=$((stack + $(grep -o modifier "$tmp/json" | wc -l)))
	rm "$tmp/image.tf"
done
receiver serve "${receive[@]}" "$build/bin/telefork-pad" serve --insecure tcp://127.0.0.1:0
for way in static pie dyn; do
	case $("${run[@]}" "$build/probes/signed-$way" "$address" --yoyo) in ok*) ;; *) fail "signed-$way: there and back" ;; esac
done
echo "$((seed - 1)) moments, $stack signed return addresses, $link of them in the link register, 0 lost"
if [ -n "$signs" ]; then
	[ "$keys" -gt 1 ] && [ "$stack" -gt "$count" ] && [ "$link" -gt 0 ]
else
	[ "$keys" = 1 ] && [ "$stack" = 0 ]
fi
