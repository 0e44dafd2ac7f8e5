#!/usr/bin/env python3
"""One source and one recipe give the same file: from every instruction set, 1 and 2 threads, and every build.

usage: same_bytes.py ROOT WORKER
QUANTD_OTHER_WORKERS: more engines to compare, parted by semicolons, such as
"build-clang/daemon/quantd-worker;qemu-aarch64 -cpu max build-aarch64/daemon/quantd-worker".
"""
import os
import shlex
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import engines
import tap

ROOT, WORKER = sys.argv[1:3]
CPUS = ("scalar", "avx2", "avx512")  # names that this CPU has not keep nothing: the scalar kernels again


def ways():
    """[(what it is, worker, threads, QUANTD_CPU)]"""
    found = [("2 threads", [WORKER], 2, None)]
    found += [(f"QUANTD_CPU={cpu}", [WORKER], 1, cpu) for cpu in CPUS]
    for other in filter(None, os.environ.get("QUANTD_OTHER_WORKERS", "").split(";")):
        found.append((os.path.relpath(other.split()[-1], ROOT), shlex.split(other), 2, None))
    return found


def sources():
    found = {name: gguf for name, (gguf, _) in engines.models(ROOT).items()}
    found["tiny-kjv safetensors"] = os.path.join(ROOT, "models", "tiny-kjv")
    return found


def compare(folder, source, scheme, way):
    what, worker, threads, cpu = way
    first, second = os.path.join(folder, "first"), os.path.join(folder, "second")
    engines.quantize([WORKER], source, first, scheme)
    engines.quantize(worker, source, second, scheme, threads=threads, cpu=cpu)
    wanted, got = engines.digest(first), engines.digest(second)
    if wanted != got:
        raise AssertionError(f"{what}: {got}, one thread of this build: {wanted}")


with tempfile.TemporaryDirectory() as folder:
    for name, source in sources().items():
        for scheme in engines.SCHEMES:
            for way in ways():
                tap.case(f"{name} {scheme}: {way[0]}: same bytes", lambda: compare(folder, source, scheme, way))
tap.end()
