#!/usr/bin/env python3
"""Hardware profiles: what plan says for other machines, and what it says where a profile is none.

usage: profiles.py ROOT DAEMON WORKER QUANTCTL
"""
import json
import os
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import tap
from house import House

ROOT, *PROGRAMS = sys.argv[1:5]
MODEL = os.path.join(ROOT, "models", "tiny-kjv.gguf")
PROFILES = os.path.join(ROOT, "tests", "data", "profiles")
EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_CANTCREAT, EX_IOERR, EX_CONFIG = 64, 65, 66, 73, 74, 78
LAYOUTS = {"cortex-a53": "r4k4p128", "cortex-a76": "r4k4p128", "i8mm": "r4k8p128", "x86-64": "portable", "haswell": "r8k4p128",
           "skylake-x": "r8k4p128", "ice-lake": "r16k4p128"}


def quantctl(house, *args):
    return subprocess.run([house.quantctl, *args], env=house.env, capture_output=True, text=True, timeout=60)


def plan(house, profile, *args):
    done = quantctl(house, "plan", "tiny", "--json", "--hw", profile, *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def other_machines(house):
    here = json.loads(quantctl(house, "plan", "tiny", "--json", "--scheme", "q8_0").stdout)
    assert "hardware" not in here and here["layout_why"], here
    for name, layout in LAYOUTS.items():
        there = plan(house, os.path.join(PROFILES, name + ".hw"), "--scheme", "q8_0")
        assert there["layout"] == layout, (name, there["layout"], there["layout_why"])
        assert there["hardware"].startswith(("x86_64", "aarch64")) and there["tensors"] == here["tensors"], there


def too_small_a_machine(house):
    small = write(house, "features = aarch64+neon\nmemory = 16M\n")
    there = plan(house, small)
    assert there["scheme"] == "q8_0" and "an eighth of the 16.0 MiB" in there["why"], there["why"]


def saved_profile(house):
    path = os.path.join(house.folder, "here.hw")
    done = quantctl(house, "hw", "--save", path, "--quiet")
    assert done.returncode == 0 and not done.stdout, done.stderr
    hw = json.loads(quantctl(house, "hw", "--json").stdout)
    there = plan(house, path)
    here = json.loads(quantctl(house, "plan", "tiny", "--json").stdout)
    assert there.pop("hardware") == hw["features"] and there == here, (there, here)
    again = quantctl(house, "hw", "--save", path)
    assert again.returncode == EX_CANTCREAT and "exists" in again.stderr and "remove it" in again.stderr, again.stderr


def a_pipe(house):
    with subprocess.Popen(["printf", r"features = aarch64+neon\nmemory = 1G\n"], stdout=subprocess.PIPE) as source:
        done = subprocess.run([house.quantctl, "plan", "tiny", "--hw", "/dev/stdin"], env=house.env, stdin=source.stdout,
                              capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "for: aarch64+neon\n" in done.stdout, done.stderr


def write(house, text):
    path = os.path.join(house.folder, "profile.hw")
    with open(path, "wb") as f:
        f.write(text if isinstance(text, bytes) else text.encode())
    return path


def refused(house, path, status, *words):
    done = quantctl(house, "plan", "tiny", "--hw", path)
    assert done.returncode == status, (done.returncode, done.stderr)
    for word in (path, "hint: ", *words):
        assert word in done.stderr, (word, done.stderr)


def layout_of_another_cpu(house):
    done = quantctl(house, "plan", "tiny", "--layout", "r16k4p128", "--hw", os.path.join(PROFILES, "i8mm.hw"))
    assert done.returncode == EX_DATAERR and "needs x86_64+avx512+avx512vnni; the CPU has aarch64+" in done.stderr, done.stderr


BAD = {
    "unknown feature": ("memory = 1G\nfeatures = x86_64+avx3\n", "line 2: unknown feature 'avx3'", "did you mean 'avx2'"),
    "unknown architecture": ("features = mips\nmemory = 1G\n", "line 1: unknown architecture 'mips'", "x86_64 or aarch64"),
    "negative memory": ("features = x86_64\nmemory = -8G\n", "line 2: memory = '-8G'", "such as 512M"),
    "huge memory": ("features = x86_64\nmemory = 9999999999T\n", "line 2: memory", "to 4096T"),
    "no memory": ("features = x86_64\n", "no line says 'memory'", "hw --save"),
    "unknown key": ("feature = x86_64\n", "line 1: a profile has no 'feature'", "did you mean 'features'"),
    "words": ("what is this\n", "line 1: not 'key = value'", "hw --save"),
    "NUL": (b"features = x86_64\0\n", "not text", "hw --save"),
    "nothing": ("", "empty", "hw --save"),
    "too much": ("#" * 5000, "longer than", "hw --save"),
    "a long line": ("#" * 1000, "line 1: longer than", "hw --save"),
}

with House(*PROGRAMS) as house:
    house.add(MODEL, "tiny.gguf")
    house.start()
    house.until_ready("tiny")
    tap.case("other machines: the layout that each wants, the same tensors", lambda: other_machines(house))
    tap.case("a small machine: its memory decides, not ours", lambda: too_small_a_machine(house))
    tap.case("a saved profile: planned for as this machine is; never replaced", lambda: saved_profile(house))
    tap.case("a profile through a pipe: read", lambda: a_pipe(house))
    tap.case("a layout that the machine has no kernels for: refused", lambda: layout_of_another_cpu(house))
    tap.case("a missing profile: named", lambda: refused(house, "/nowhere.hw", EX_NOINPUT, "No such file", "hw --save"))
    tap.case("a folder: named", lambda: refused(house, house.folder, EX_IOERR, "Is a directory", "hw --save"))
    for what, (text, *words) in BAD.items():
        tap.case(f"{what}: file, line, reason and next step", lambda: refused(house, write(house, text), EX_USAGE, *words))


def all_features(machine):
    return {"x86_64": "x86_64+amxint8+avx512bf16+avx512vbmi+avx512vnni+avxvnni", "aarch64": "aarch64+bf16+dotprod+i8mm+sve"}[machine]


def believed(house, profile, machine):
    """Features are taken away and given back, never added; memory is what the profile says."""
    whole = house.ctl("hw")["features"]
    house.kill()
    write(house, f"features = {machine}\nmemory = 64M\n")
    house.start(options=("--user", "--hardware", profile))
    bare = house.ctl("hw")
    assert bare["features"] == machine and bare["memory_bytes"] == 64 << 20, bare
    planned = house.ctl("plan", "tiny")
    assert planned["layout"] == "portable" and "of the 64.0 MiB" in planned["why"] and "no vector" in planned["why"], planned
    write(house, f"features = {all_features(machine)}\nmemory = 1T\n")
    house.ctl("rescan")
    assert house.ctl("hw")["features"] == whole and house.ctl("hw")["memory_bytes"] == 1 << 40, house.ctl("hw")


def unbelievable(house, profile, machine):
    """At a rescan what was believed stays; at a start it is an error of the configuration."""
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[machine]
    write(house, f"features = {other}\nmemory = 1G\n")
    done = quantctl(house, "rescan")
    assert done.returncode == EX_CONFIG and profile in done.stderr and "another architecture" in done.stderr, done.stderr
    assert house.ctl("hw")["memory_bytes"] == 1 << 40
    house.kill()
    for text in (f"features = {other}\nmemory = 1G\n", f"features = {machine}\n", "\0"):
        write(house, text)
        done = subprocess.run([house.daemon, "--user", "--hardware", profile], env=house.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == EX_CONFIG and profile in done.stderr, (done.returncode, done.stderr)


with House(*PROGRAMS) as house:
    house.add(MODEL, "tiny.gguf")
    house.start()
    house.until_ready("tiny")
    profile, machine = write(house, ""), house.ctl("hw")["features"].split("+")[0]
    tap.case("quantd --hardware: takes features away, never adds one", lambda: believed(house, profile, machine))
    tap.case("quantd --hardware: what it cannot be is refused", lambda: unbelievable(house, profile, machine))
tap.end()
