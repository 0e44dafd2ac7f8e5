#!/usr/bin/env python3
"""What quantctl says to somebody who mistypes: every answer names the next step.

usage: words.py ROOT DAEMON WORKER QUANTCTL
"""
import os
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import big_model
import tap
from house import House

ROOT, *PROGRAMS = sys.argv[1:5]
MODEL = os.path.join(ROOT, "models", "tiny-kjv.gguf")
EX_USAGE, EX_DATAERR, EX_NOINPUT = 64, 65, 66


def says(house, status, text, *args):
    def check():
        done = subprocess.run([house.quantctl, *args], env=house.env, capture_output=True, text=True, timeout=60)
        said = done.stdout + done.stderr
        assert done.returncode == status, (done.returncode, said)
        assert text in said, said
    return check


def quantized_copy(house):
    out = os.path.join(house.folder, "small.gguf")
    subprocess.run([house.quantctl, "quantize", MODEL, "-o", out, "--scheme", "q8_0", "--quiet"], check=True, env=house.env,
                   stdout=subprocess.DEVNULL)
    return out


def many_tensors(house, n):
    """As many tensors as large models have: what sorts them asks the C library for memory, inside the sandbox."""
    path, head = os.path.join(house.folder, "many.gguf"), big_model.header(n, rows=(256, 2))
    with open(path, "wb") as f:
        f.write(head)
        f.truncate(len(head) + n * 256 * 2 * 2)
    return path


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
    tap.case("rules: a plan tells them", says(house, 0, "--keep 'attn_q'", "plan", "tiny", "--scheme", "q4_0", "--keep", "attn_q"))
    tap.case("rules: an artifact of them", says(house, 0, "tensor=ffn=q8_0", "open", "tiny", "--scheme", "q4_0", "--tensor", "ffn=q8_0"))
    tap.case("types of output and embedding: an artifact of them", says(house, 0, "pure=1 output=q4_0 embedding=f16 leave_output=1", "open", "tiny", "--scheme", "q8_0", "--pure", "--output-type", "q4_0", "--embedding-type", "F16", "--leave-output"))
    tap.case("a rule of no type: the form is named", says(house, EX_USAGE, "REGEX=TYPE", "open", "tiny", "--tensor", "ffn"))
    tap.case("a rule in another dialect: what to write", says(house, EX_USAGE, "[0-9] for", "plan", "tiny", "--keep", r"blk\.\d"))
    tap.case("a rule that meets nothing: it is named", says(house, EX_USAGE, "--keep 'atn_q'", "plan", "tiny", "--keep", "atn_q"))
    tap.case("a pattern too large: the limit", says(house, EX_DATAERR, "passes 512", "open", "tiny", "--keep", "(((((((((a+)+)+)+)+)+)+)+)+)+"))
    tap.case("q2_k_s: what it needs", says(house, EX_USAGE, "importance matrix", "open", "tiny", "--scheme", "Q2_K_S"))
    house.add(many_tensors(house, 1000), "many.gguf")
    house.until_ready("many")
    tap.case("a model of 1000 tensors: built", says(house, 0, "tensors: 1000", "open", "many", "--scheme", "q4_k_m"))
    house.add(quantized_copy(house), "small.gguf")
    house.until_ready("small")
    tap.case("a quantized source: refused with the option", says(house, EX_DATAERR, "--allow-requantize", "open", "small", "--scheme", "q4_0"))
    tap.case("a quantized source, asked for: said", says(house, 0, "quantized again", "open", "small", "--scheme", "q4_0", "--allow-requantize"))
    tap.case("a quantized source: shown", says(house, 0, "quantized again", "show", "small:q4_0"))
    tap.case("a model mistyped: the nearest is named", says(house, EX_NOINPUT, "did you mean 'tiny'?", "open", "tinny"))
    tap.case("retry of a job that is none: an error", says(house, EX_NOINPUT, "no failed job 77", "jobs", "--retry", "77"))
    tap.case("a key without a file: the file is asked for", says(house, EX_USAGE, "FILE.pub", "key", "revoke"))
    tap.case("no budget: said in words", says(house, 0, "budget: no limit", "status"))
tap.end()
