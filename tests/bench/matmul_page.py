#!/usr/bin/env python3
"""Runs bench_matmul, shows each result as it comes, and writes the tables of docs/matmul.md.

usage: matmul_page.py BENCH_MATMUL PAGE [FOLDER of libggml-base.so]
Once with all features beside the peer's best library, once with those of AVX2 beside its haswell one. What stands above
the line MARK of PAGE is kept.
"""
import json
import os
import subprocess
import sys

BENCH, PAGE, *PEERS = sys.argv[1:]
MARK = "<!-- below: written by ./dev bench matmul -->\n"
HEAD = ("| type | out x in | n | threads | packed Gop/s | portable Gop/s | ggml Gop/s | x ggml | GB/s | of reading | of multiplying |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n")
RUNS = (("All features", {}, []),
        ("AVX2 alone", {"QUANTD_CPU": "avx2,fma,f16c"}, ["--peer=haswell", "--quick"]))
# At n = 512: times ggml, share of multiplying; at n = 1: share of reading.
BARS = {"q8_0": (2.5, 0.6, 0.9), "q4_0": (2.2, 0, 0.9), "q4_k": (3.0, 0, 0.9)}


def results(environment, options):
    with subprocess.Popen([BENCH, "--json", *options, *PEERS], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, **environment}) as bench:
        for line in bench.stdout:
            yield json.loads(line)
    if bench.returncode:
        sys.exit(f"{BENCH}: status {bench.returncode}")


def of_reading(r):
    return f"{r['of_best']:.0%} of {r['read_gb_s']:.1f}" if r["read_gb_s"] else ""


def of_multiplying(r):
    return f"{r['of_best']:.0%} of {r['multiply_gop_s']:.0f}" if r["multiply_gop_s"] else ""


def cells(r):
    ratio = f"{r['ratio']:.2f}" if r["ratio"] else ""
    repacked = ", repacked" if r["peer_buffer"] not in ("", "CPU") else ""
    return (r["type"], f"{r['rows']} x {r['cols']}", str(r["n"]), str(r["threads"]), f"{r['packed_gop_s']:.1f}",
            f"{r['portable_gop_s']:.1f}", f"{r['peer_gop_s']:.1f}{repacked}", ratio,
            f"{r['packed_gb_s']:.1f}" if r["n"] == 1 else "", of_reading(r), of_multiplying(r))


def below_bar(r):
    ratio, of_peak, of_read = BARS.get(r["type"], (0, 0, 0))
    if r["n"] == 1:
        return r["of_best"] < of_read
    return r["n"] == 512 and (r["ratio"] < ratio or r["of_best"] < of_peak)


def table(title, environment, options):
    rows, said = [], ""
    for r in results(environment, options):
        if "cpu" in r:
            peer = f"beside {r['peer']}" if r["peer"] else "no peer"
            said = f"{r['cpu']}, {r['features']}, {r['compiler']}; packed as {r['layout']}; {peer}."
            print(f"{title}: {said}", flush=True)
            continue
        low = not environment and r["peer_buffer"] and below_bar(r)
        print("  ".join(f"{c:>11}" for c in cells(r)) + ("  below its bar" if low else ""), flush=True)
        rows.append("| " + " | ".join(cells(r)) + " |\n")
    return f"## {title}\n\n{said}\n\n{HEAD}{''.join(rows)}"


with open(PAGE, encoding="utf-8") as f:
    above = f.read().split(MARK)[0]
written = above + MARK + "\n" + "\n".join(table(*run) for run in RUNS)
with open(PAGE, "w", encoding="utf-8") as f:
    f.write(written)
print(f"written: {PAGE}")
