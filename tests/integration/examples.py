#!/usr/bin/env python3
"""The programs of client/examples as a user meets them, beside a private daemon.

usage: examples.py ROOT DAEMON WORKER QUANTCTL EXAMPLE-MATMUL
"""
import os
import re
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import gguf
import tap
from house import House

ROOT, DAEMON, WORKER, QUANTCTL, MATMUL = sys.argv[1:]
TENSOR = "blk.0.ffn_up.weight"


def run(house, *command):
    return subprocess.run(command, env=house.env, capture_output=True, text=True, timeout=120)


def product(house, scheme, layout):
    done = run(house, MATMUL, "tiny-kjv", scheme, TENSOR, layout)
    assert done.returncode == 0, done.stderr
    return re.findall(r"^y\[\d+\] = (\S+)$", done.stdout, re.M)


def reference(n_rows):
    """Products in f64 of the model's own bf16 weights, and the sums of |w| that errors are measured by."""
    _, tensors = gguf.read(os.path.join(ROOT, "models", "tiny-kjv.gguf"))
    t = tensors[TENSOR]
    assert t.kind == gguf.BF16
    n = t.shape[0]
    rows = [gguf.struct.unpack(f"<{n}f", b"".join(b"\0\0" + t.data[2 * i:2 * i + 2] for i in range(r * n, r * n + n))) for r in range(n_rows)]
    x = [(i % 16) / 8 - 1 for i in range(n)]
    return [(sum(a * b for a, b in zip(row, x)), sum(map(abs, row))) for row in rows]


def check_product(house, scheme, share):
    """Within @share of the sum of magnitudes: what rounding of weights and activations adds."""
    y = product(house, scheme, "portable")
    for value, (exact, magnitude) in zip(y, reference(len(y)), strict=True):
        assert abs(float(value) - exact) <= share * magnitude, f"{value}, not {exact}"


def check_mistakes(house):
    done = run(house, MATMUL, "tiny-kjv", "q8_0", "blk.0.attn_norm.weight", "portable")
    assert done.returncode and "has 1 dimension" in done.stderr, done.stderr
    done = run(house, MATMUL, "tiny-kjv", "q8_0", "blk.0.nothing", "portable")
    assert done.returncode and "no tensor" in done.stderr and "quantctl show" in done.stderr, done.stderr


with House(DAEMON, WORKER, QUANTCTL) as house:
    house.add(os.path.join(ROOT, "models", "tiny-kjv.gguf"))
    house.start()
    house.until_ready("tiny-kjv")
    for scheme, share in (("f32", 1e-6), ("bf16", 1e-6), ("q8_0", 0.01), ("q4_k_m", 0.05), ("q4_0", 0.1)):
        tap.case(f"matmul.c: {scheme} is near the product of the source's weights", lambda: check_product(house, scheme, share))
    tap.case("matmul.c: tensors that are no matrices are refused with a reason", lambda: check_mistakes(house))
    tap.end()
