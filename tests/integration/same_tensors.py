#!/usr/bin/env python3
"""Safetensors and GGUF of the same weights give the same tensors, type and bytes, wherever the two forms are here.

usage: same_tensors.py ROOT WORKER
"""
import json
import math
import os
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import engines
import gguf
import tap

ROOT, WORKER = sys.argv[1:3]


def pairs():
    """{name: (GGUF, folder of safetensors)}"""
    found = {name: (path, os.path.splitext(path)[0]) for name, (path, _) in engines.models(ROOT).items()}
    if "stories260K" in found:
        found["stories260K"] = (found["stories260K"][0], os.path.join(os.path.dirname(found["stories260K"][0]), "hf"))
    return found


def compare(folder, one, other, scheme, pure):
    made = [os.path.join(folder, name) for name in ("one", "other")]
    engines.quantize([WORKER], one, made[0], scheme, pure)
    engines.quantize([WORKER], other, made[1], scheme, pure)
    (_, a), (_, b) = gguf.read(made[0]), gguf.read(made[1])
    if set(a) != set(b):
        raise AssertionError(f"other tensors: {sorted(set(a) ^ set(b))}")
    for name in a:
        if a[name].kind != b[name].kind or a[name].shape != b[name].shape:
            raise AssertionError(f"{a[name][:3]} from GGUF, {b[name][:3]} from safetensors")
        if a[name].data != b[name].data:
            raise AssertionError(f"'{name}': other bytes")


def quality(source, out, scheme):
    """The error over all quantized tensors, as the summary tells it."""
    done = subprocess.run([WORKER, "--direct", source, "-o", out, "--scheme", scheme, "--force", "--json"], check=True,
                          capture_output=True, text=True)
    summary = json.loads(done.stdout)
    return [summary[key] for key in ("sqnr_db", "rel_rmse", "max_abs")]


def compare_quality(folder, one, other, scheme):
    """Norms that safetensors hold as bf16 become f32 without error: they must not flatter the sum."""
    a, b = (quality(source, os.path.join(folder, "quality"), scheme) for source in (one, other))
    if not all(math.isclose(x, y, rel_tol=1e-5) for x, y in zip(a, b)):
        raise AssertionError(f"{a} from GGUF, {b} from safetensors")


with tempfile.TemporaryDirectory() as folder:
    for name, (one, other) in pairs().items():
        for scheme in engines.SCHEMES:
            for pure in (True, False):
                tap.case(f"{name} {scheme}{' pure' if pure else ''}: safetensors and GGUF give the same tensors",
                         lambda: compare(folder, one, other, scheme, pure))
        for scheme in ("q8_0", "q4_0"):
            tap.case(f"{name} {scheme}: safetensors and GGUF tell the same error",
                     lambda: compare_quality(folder, one, other, scheme))
tap.end()
