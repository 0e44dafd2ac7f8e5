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

with House(DAEMON, WORKER, QUANTCTL, more="[limits]\nconnections = 1000\ndescriptors = 8192\n") as house:
    house.add(os.path.join(ROOT, "models", "tiny-kjv.gguf"))
    house.start()
    house.until_ready("tiny-kjv")
    house.ctl("open", "tiny-kjv", "--scheme", "q8_0")
    sys.exit(subprocess.run([BENCH_OPEN, house.path("run", "quantd", "quantd.sock"), "tiny-kjv", "q8_0", *SECONDS], env=house.env).returncode)
