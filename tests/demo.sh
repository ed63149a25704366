#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# demo.sh STARTED: what make demo shows, after everything is built. STARTED: seconds of the epoch at which
# make began.
set -eu
started=$1
host=$(uname -m)
out=build/demo
rm -rf "$out"
cat <<TEXT

  teleport  a program on machine A calls telefork(); its copy wakes on machine B, and a witness outside of
            both compares every register, every mapping and every byte
  oracle    the same between QEMU machines; then QEMU, which nothing inside can fool, shows both machines'
            registers and memory, and they are held against what the witness saw
  render    a path tracer is sent to the other machine by telefork_yoyo(), renders there, and is back in
            the same process with the picture: it has to be the one that is rendered at home
  witness   the same under QEMU user mode, a machine that starts in milliseconds

TEXT
rc=0
"build/$host/bin/telebed" run teleport oracle render witness --filter registers --filter pathtracer \
	--keep --table --out "$out" --json "$out/results.json" || rc=$?
echo
echo "pictures:      $(find "$out" -path "$out/machines" -prune -o -name '*.png' -print | sort | tr '\n' ' ')"
echo "saved images:  $(find "$out" -path "$out/machines" -prune -o -name 'original.tf' -print | sort | tr '\n' ' ')"
echo "               (build/$host/bin/telefork inspect FILE shows one, telefork diff A B compares two)"
echo "results:       $out/results.json"
echo "make demo took $(($(date +%s) - started)) s"
exit "$rc"
