#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""sample_report.py N: a report of N cells that were never run, with everything that a page has to show:
losses in registers, memory and state, moves there and back, a clock that was stepped, hostile text, a run
that ended early. The same each time."""
import json
import random
import sys

random.seed(4)
N = int(sys.argv[1])
COLUMNS = [(a, t, w) for a in ("aarch64", "x86_64") for t in ("native", "user", "system")
           for w in ("file", "unix", "tcp") if (a, t) != ("aarch64", "native") and (t, w) != ("system", "unix")]
SCENARIOS = ["copies", "guests", "host", "memory", "oracle", "pair-kernels", "probes", "teleport", "witness"]
PROBES = ["hop", "registers", "clib", "memory", "threads", "attrs", "files", "signed"]
QEMU = "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"


def machine(name, arch, tier):
    m = {"name": name, "arch": arch, "tier": tier, "kernel": "6.1.0-44-cloud-amd64", "cpu": "max"}
    if tier == "system":
        m.update(accelerator="tcg", qemu=QEMU, memory_mib=256, cores=1)
    return m


def phases(outside):
    v, t = [], 3.0
    for name, ms in (("receivers", 60), ("probe", 140), ("move", 40), ("witness", 90), ("verdict", 30)):
        ms *= random.uniform(.7, 1.6)
        v.append({"machine": None, "name": name, "begin_ms": round(t, 3), "ms": round(ms, 3)})
        t += ms
    at = v[2]["begin_ms"] + 1
    for side, names in (("A", ("check", "connect", "freeze", "description", "pages", "answer", "commit", "landing")),
                        ("B", ("greet", "description", "plan", "restore", "commit"))):
        t = at if side == "A" else at + 6
        for name in names if outside or side == "B" else ():
            ms = random.uniform(.2, 9)
            p = {"machine": side, "name": name, "begin_ms": round(t, 3), "ms": round(ms, 3)}
            if side == "B" and outside and random.random() < .1:
                p["clock_ms"] = 3600000.5
            v.append(p)
            t += ms
    return v


def difference(kind, name, a, b, **more):
    return dict({"witness": "image", "kind": kind, "name": name, "a": a, "b": b, "exception": None}, **more)


def losses(arch):
    wide = "".join("%02x" % random.randrange(256) for _ in range(64))
    row = "00000000000000002f6c69623634000048656c6c6f2c20776f726c64210a0000"
    return [
        difference("register", "rbx" if arch == "x86_64" else "x19", "00007ffd463e1188", "00007ffd463e1180", thread=4321),
        difference("register", "zmm3" if arch == "x86_64" else "z3", wide, wide[:90] + "00" + wide[92:], thread=4321),
        difference("register", "fs_base" if arch == "x86_64" else "tpidr_el0", "00007f10deadbe00", "-", thread=4322),
        dict(difference("register", "rflags", "0000000000000246", "0000000000000202"), witness="qemu", machine="B"),
        difference("memory", "bytes", "48", "68", address="0x5411d0", size=3, mapping="/tmp/machines/3/clib-static",
                   symbol="greeting+0x10", bytes_at="0x5411c0", bytes_a=row, bytes_b=row.replace("48656c", "68ff6c").replace("0a", "00")),
        difference("memory", "bytes", "00", "f0", address="0x7ffd463e0010", size=1, mapping=None,
                   bytes_at="0x7ffd463e0010", bytes_a="00" * 32, bytes_b="f0" + "00" * 31),
        difference("mapping", "protection", "r-x", "rwx", address="0x7fa1f3cbf000", size=28672,
                   mapping="/usr/lib/x86_64-linux-gnu/libc.so.6"),
        difference("state", "thread.sigmask", "SIGUSR1,SIGCHLD", "SIGUSR1"),
    ]


def cell(scenario, probe, column, engine):
    arch, tier, way = column
    build = random.choice(("move", "copy")) if engine == "outside" else "static"
    dice = random.random()
    verdict = "failed" if dice < .03 else "broken" if dice < .045 else "skipped" if dice < .05 else "ok"
    if engine == "criu" and dice < .2:
        verdict = "unable"
    lost = losses(arch) if verdict == "failed" else []
    route = ["A", "B", "A"] if scenario == "guests" else ["A", "B"]
    return {
        "name": "%s/%s-%s.%s.%s.%s%s" % (scenario, probe, build, arch, tier, way, "" if engine == "library" else "." + engine),
        "repetition": 0, "peer": engine == "criu", "fan_out": False, "scenario": scenario, "probe": probe, "build": build, "engine": engine, "arch": arch, "tier": tier,
        "transport": way, "route": route, "file": "tests/scenarios/%s.conf" % scenario, "verdict": verdict,
        "registers": 86, "mappings": 29, "bytes": random.randrange(1 << 24), "lost": len(lost),
        "seen_registers": 86 if tier == "system" else None, "seen_bytes": 9 << 20 if tier == "system" else None,
        "ms": random.randrange(90, 5000), "ready_ms": 130 if tier == "system" else 0,
        "said": "ok 83 checks" if verdict == "ok" else None,
        "why": {"ok": None, "skipped": "B: no kernel 6.12: make more-guests", "unable": "criu cannot save it: no such thing", "broken": "B: QEMU was killed by signal 9\nconsole: <script>alert('text')</script>",
                "failed": "lost on the way, 8 in all:\nregister rbx: 00007ffd463e1188 -> 00007ffd463e1180"}[verdict],
        "folder": None if verdict in ("ok", "skipped") else "/tmp/telebed.XyZ123/%s-%s" % (scenario, probe),
        "machines": [machine("A", arch, tier), machine("B", arch, tier)], "phases": phases(engine == "outside"),
        "differences": lost,
        "excepted": [difference("mapping", "kind", "file", "anon", exception="by-value", address="0x7fa1f3cbf000",
                                size=28672, mapping="/usr/lib/gconv/gconv-modules.cache"),
                     difference("state", "source.origin", "signal", "task", exception="nature")],
        "stands": [{"thread": 4321, "pc": "0x402c31", "symbol": "wait_here+0x61", "instruction": "jmp 0x402c31", "code": "ebfe"}],
    }


def main():
    all_cells = [(s, p, c, e) for s in SCENARIOS for p in PROBES for c in COLUMNS for e in ("library", "outside", "criu")]
    cells = [cell(*c) for c in all_cells[:N]]
    cells.sort(key=lambda c: c["name"])
    count = {v: sum(c["verdict"] == v and (v == "ok" or not c["peer"]) for c in cells)
             for v in ("ok", "failed", "broken", "skipped", "unable")}
    run = {"telefork": "0.1.0", "started": "2026-11-26T03:32:13Z", "ms": 290056, "planned": len(cells) + 2, "seed": 4, "inputs": [],
           "host": {"arch": "x86_64", "kernel": "6.1.0", "cpu": "a processor"}, "bail": "C: no answer in 60 s"}
    json.dump({"format": "telebed-report", "version": 1, "runs": [run], "planned": len(cells) + 2,
               "passed": count["ok"], "failed": count["failed"], "broken": count["broken"], "skipped": count["skipped"],
               "unable": count["unable"], "cells": cells},
              sys.stdout, indent=1)


main()
