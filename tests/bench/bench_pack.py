#!/usr/bin/env python3
"""Packing and unpacking a file beside a plain copy of it: one thread, CPU time, in memory (/dev/shm) so that no disk is measured.

usage: bench_pack.py WORKER [MIB ROUNDS]: size of the f16 source and rounds, of which the best counts; 512 and 3 unless told.
"""
import os
import resource
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import big_model

WORKER = sys.argv[1]
MIB, ROUNDS = (int(n) for n in (sys.argv[2:4] or (512, 3)))
SCHEMES, LAYOUTS = ("q8_0", "q4_0", "q4_k_m", "q6_k"), ("r4k4p128", "r4k8p128", "r8k4p128", "r16k4p128")


def cpu_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def gb_per_s(source, command):
    return os.path.getsize(source) / 1e9 / min(cpu_seconds(command) for _ in range(ROUNDS))


def direct(form, source, out, *more):
    return [WORKER, form, source, out, "--threads", "1", "--force", "--quiet", *more]


def measure(folder, scheme):
    source, portable, packed, out = (os.path.join(folder, name) for name in ("in", "portable", "packed", "out"))
    subprocess.run([WORKER, "--direct", source, portable, "--scheme", scheme, "--force", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    copy = gb_per_s(portable, ["cp", "--reflink=never", portable, out])
    for layout in LAYOUTS:
        pack = gb_per_s(portable, direct("--pack", portable, packed, "--layout", layout))
        unpack = gb_per_s(packed, direct("--unpack", packed, out))
        print(f"{scheme:8} {layout:6} {pack:9.2f} {unpack:9.2f} {copy:9.2f}", flush=True)


with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as FOLDER:
    big_model.write(os.path.join(FOLDER, "in"), MIB)
    print("GB/s of one thread's CPU time, header and file handling included")
    print(f"{'scheme':8} {'layout':6} {'pack':>9} {'unpack':>9} {'copy':>9}")
    for SCHEME in SCHEMES:
        measure(FOLDER, SCHEME)
