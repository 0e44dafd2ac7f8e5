#!/usr/bin/env python3
"""Opens of one warm artifact beside a bare echo that passes a descriptor: starts a private daemon for bench_open.

usage: bench_open.py ROOT DAEMON WORKER QUANTCTL BENCH_OPEN [SECONDS]
"""
import os
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
from house import House

ROOT, DAEMON, WORKER, QUANTCTL, BENCH_OPEN, *SECONDS = sys.argv[1:]

N_MODELS = 25  # of equal size and different content, for first opens


def variants(path, house):
    """Adds models that differ in one mantissa bit of their last weight."""
    with open(path, "rb") as f:
        data = bytearray(f.read())
    for i in range(N_MODELS):
        data[-2] = i
        with open(house.path("variant"), "wb") as f:
            f.write(data)
        yield os.path.basename(house.add(house.path("variant"), f"variant-{i}.gguf")).removesuffix(".gguf")


with House(DAEMON, WORKER, QUANTCTL, more="[limits]\nconnections = 1000\ndescriptors = 8192\n") as house:
    house.add(os.path.join(ROOT, "models", "tiny-kjv.gguf"))
    house.start()
    house.until_ready("tiny-kjv")
    house.ctl("open", "tiny-kjv", "--scheme", "q8_0")
    names = list(variants(os.path.join(ROOT, "models", "tiny-kjv.gguf"), house))
    for name in names:
        house.until_ready(name)
        house.ctl("open", name, "--scheme", "q8_0")
    seconds = SECONDS[0] if SECONDS else "2"
    sys.exit(subprocess.run([BENCH_OPEN, house.path("run", "quantd", "quantd.sock"), "tiny-kjv", "q8_0", seconds, *names], env=house.env).returncode)
