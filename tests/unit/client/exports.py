#!/usr/bin/env python3
"""libquantd exports what its installed headers declare, and nothing else.

usage: exports.py ROOT LIBRARY
"""
import glob
import re
import subprocess
import sys

ROOT, LIBRARY = sys.argv[1:]


def declared():
    names = set()
    for header in glob.glob(f"{ROOT}/client/include/quantd/*.h") + glob.glob(f"{ROOT}/kernels/include/quantd/*.h"):
        with open(header) as f:
            text = re.sub(r"/\*.*?\*/|^#.*?(?<!\\)$|typedef [^;]*;", "", f.read(), flags=re.S | re.M)
        names |= set(re.findall(r"\b(qd_\w+)\s*\(", text))
    return names


def exported():
    listed = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in listed.splitlines()} - {"QUANTD_0"}
    return {name.removesuffix("@@QUANTD_0") for name in names}


missing, surplus = declared() - exported(), exported() - declared()
for name in sorted(missing):
    print(f"declared and not exported: {name}")
for name in sorted(surplus):
    print(f"exported and not declared: {name}")
sys.exit(1 if missing or surplus else 0)
