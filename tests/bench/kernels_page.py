#!/usr/bin/env python3
"""Runs bench_kernels, shows each result as it comes, and writes the table of docs/kernels.md.

usage: kernels_page.py BENCH_KERNELS PAGE [FOLDER of libggml-base.so]
What stands above the line MARK of PAGE is kept.
"""
import json
import subprocess
import sys

BENCH, PAGE, *PEERS = sys.argv[1:]
MARK = "<!-- below: written by ./dev bench kernels -->\n"
HEAD = ("| operation | variant | L2: Melem/s | GB/s | x rival | memory: Melem/s | GB/s | of read rate | x rival |\n"
        "|---|---|---|---|---|---|---|---|---|\n")


def results():
    with subprocess.Popen([BENCH, "--json", *PEERS], stdout=subprocess.PIPE, text=True) as bench:
        for line in bench.stdout:
            yield json.loads(line)
    if bench.returncode:
        sys.exit(f"{BENCH}: status {bench.returncode}")


def show(r):
    share = f"{r['bandwidth_share']:5.0%}" if r["place"] == "memory" else "    -"
    print(f"{r['op']:<26} {r['variant']:<7} {r['place']:<6} {r['melements_s']:10.0f} Melem/s {r['gb_s']:7.2f} GB/s {share} of read rate"
          f" {r['ratio']:7.2f} x {r['peer']}", flush=True)


def row(key, l2, memory):
    rival = "" if l2["peer"] == "ggml" else f" ({l2['peer']})"
    return (f"| {key[0]} | {key[1]} | {l2['melements_s']:.0f} | {l2['gb_s']:.2f} | {l2['ratio']:.2f}{rival} "
            f"| {memory['melements_s']:.0f} | {memory['gb_s']:.2f} | {memory['bandwidth_share']:.0%} | {memory['ratio']:.2f}{rival} |\n")


def table():
    places, machine = {}, {}
    for r in results():
        if "cpu" in r:
            machine = r
            print(f"{r['cpu']}, {r['features']}; one thread reads {r['read_gb_s']:.1f} GB/s; rival: {r['rival']}", flush=True)
            continue
        show(r)
        places.setdefault((r["op"], r["variant"]), {})[r["place"]] = r
    said = (f"{machine['cpu']}, {machine['features']}, {machine['compiler']}; one thread reads {machine['read_gb_s']:.1f} GB/s; "
            f"rival: {machine['rival']}.\n\n")
    return said + HEAD + "".join(row(key, p["l2"], p["memory"]) for key, p in places.items())


with open(PAGE, encoding="utf-8") as f:
    above = f.read().split(MARK)[0]
written = above + MARK + "\n" + table()
with open(PAGE, "w", encoding="utf-8") as f:
    f.write(written)
print(f"written: {PAGE}")
