#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# stable.sh TELEBED ARCH: two runs of cells between QEMU machines, with one seed, say the same but for what the
# report's schema marks as volatile: on a bad link, there and back, with all three witnesses, and with a failure.
set -eu
# shellcheck source=tests/common.sh
. "$(dirname "$0")/common.sh"
telebed=$1 arch=$2

printf 'probe = "hop"; arch = "%s"; tier = "system"; faults = { loss = 10; duplicate = 10; jitter = 5; };\n' \
	"$arch" >"$tmp/bad-link.conf"
printf 'probe = "wrong"; arch = "%s"; tier = "system";\n' "$arch" >"$tmp/lost.conf"
for i in 1 2; do
	code=0
	"$telebed" run "$tmp/bad-link.conf" "$tmp/lost.conf" return oracle --filter bad-link/ --filter lost/ \
		--filter "return/clib-static.$arch.system.tcp" --filter "registers-static.$arch.system" --seed 8 \
		--out "$tmp/out" --report "$tmp/$i.json" >"$tmp/$i.out" || code=$?
	cat "$tmp/$i.out"
	[ "$code" = 1 ] || fail "exit code $code, not 1: one that fails, all others hold"
	[ "$(grep -c '^ok' "$tmp/$i.out")" = 3 ] || fail "not three that hold"
	"$telebed" report --run "$tmp/$i.json" --stable >"$tmp/$i.stable"
	rm -rf "$tmp/out"
done
diff "$tmp/1.stable" "$tmp/2.stable" || fail "two runs differ"
# What is compared is not nothing.
for word in '"registers": ' '"failed"' '"seen_registers": [1-9]'; do
	grep -q "$word" "$tmp/1.stable" || fail "no $word in it"
done
echo "ok: two runs on $arch say the same"
