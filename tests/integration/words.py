#!/usr/bin/env python3
"""What quantctl says to somebody who mistypes: every answer names the next step.

usage: words.py ROOT DAEMON WORKER QUANTCTL
"""
import os
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import tap
from house import House

ROOT, *PROGRAMS = sys.argv[1:5]
MODEL = os.path.join(ROOT, "models", "tiny-kjv.gguf")
EX_USAGE, EX_NOINPUT = 64, 66


def says(house, status, text, *args):
    def check():
        done = subprocess.run([house.quantctl, *args], env=house.env, capture_output=True, text=True, timeout=60)
        said = done.stdout + done.stderr
        assert done.returncode == status, (done.returncode, said)
        assert text in said, said
    return check


with House(*PROGRAMS) as house:
    house.add(MODEL, "tiny.gguf")
    house.start()
    house.until_ready("tiny")
    tap.case("a scheme without --scheme: not started as a program", says(house, EX_USAGE, "--scheme", "open", "tiny", "q8_0"))
    tap.case("MODEL:SCHEME: the option is named", says(house, EX_NOINPUT, "open tiny --scheme q8_0", "open", "tiny:q8_0"))
    tap.case("a file's path: --file is named", says(house, EX_NOINPUT, "--file " + MODEL, "open", MODEL))
    tap.case("a command behind --: runs", says(house, 0, "/proc/self/fd/", "open", "tiny", "--scheme", "q8_0", "--", "echo", "{}"))
    tap.case("a verb mistyped: the nearest is named", says(house, EX_USAGE, "did you mean 'status'?", "stauts"))
    tap.case("a scheme mistyped: the nearest is named", says(house, EX_USAGE, "did you mean 'q8_0'?", "open", "tiny", "--scheme", "q8"))
    tap.case("a model mistyped: the nearest is named", says(house, EX_NOINPUT, "did you mean 'tiny'?", "open", "tinny"))
    tap.case("retry of a job that is none: an error", says(house, EX_NOINPUT, "no failed job 77", "jobs", "--retry", "77"))
    tap.case("a key without a file: the file is asked for", says(house, EX_USAGE, "FILE.pub", "key", "revoke"))
    tap.case("no budget: said in words", says(house, 0, "budget: no limit", "status"))
tap.end()
