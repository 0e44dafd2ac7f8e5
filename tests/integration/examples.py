#!/usr/bin/env python3
"""The programs of client/examples as a user meets them, beside a private daemon.

usage: examples.py ROOT DAEMON WORKER QUANTCTL EXAMPLE-MATMUL EXAMPLE-CHAT
"""
import os
import re
import shutil
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import gguf
import tap
from house import House

ROOT, DAEMON, WORKER, QUANTCTL, MATMUL, CHAT = sys.argv[1:]
TENSOR = "blk.0.ffn_up.weight"
MODEL = os.path.join(ROOT, "models", "tiny-kjv.gguf")
LAYOUTS = ("portable", "native", "r4k4p128", "r4k8p128", "r8k4p128", "r16k4p128")
PROMPT = "And it came to pass"


def run(house, *command):
    return subprocess.run(command, env=house.env, capture_output=True, text=True, timeout=120)


def product(house, scheme, layout):
    done = run(house, MATMUL, "tiny-kjv", scheme, TENSOR, layout)
    assert done.returncode == 0, done.stderr
    return re.findall(r"^y\[\d+\] = (\S+)$", done.stdout, re.M)


def reference(n_rows):
    """Products in f64 of the model's own bf16 weights, and the sums of |w| that errors are measured by."""
    _, tensors = gguf.read(MODEL)
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


def talk(house, **options):
    """What chat.c prints, the prompt first."""
    options = {"model": "tiny-kjv", "scheme": "q8_0", "layout": "portable", "prompt": PROMPT, "tokens": 12, **options}
    done = run(house, CHAT, *(word for key, value in options.items() for word in ("--" + key.replace("_", "-"), str(value))))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(options["prompt"]), done.stdout
    return done.stdout


def check_seeds(house):
    first = talk(house, seed=7)
    assert talk(house, seed=7) == first
    assert talk(house, seed=8) != first
    assert talk(house, temp=0, seed=7) == talk(house, temp=0, seed=8) == talk(house, top_k=1)


def check_threads(house):
    assert talk(house, threads=3, scheme="q4_k_m") == talk(house, threads=1, scheme="q4_k_m")


def trace(house, scheme, layout):
    """Every bit of the two best logits of each step."""
    path = house.path("trace")
    talk(house, scheme=scheme, layout=layout, temp=0, trace=path)
    with open(path) as f:
        return f.read()


def is_served(house, layout):
    """Not those that this CPU has no use for."""
    done = run(house, MATMUL, "tiny-kjv", "q8_0", TENSOR, layout)
    assert done.returncode == 0 or f"layout '{layout}' needs" in done.stderr, done.stderr
    return done.returncode == 0


def check_layouts(house, scheme, layouts):
    traces = {layout: trace(house, scheme, layout) for layout in layouts}
    assert len(set(traces.values())) == 1 and len(traces["portable"].splitlines()) == 12, traces


def check_same_product(house, scheme, layouts):
    products = {layout: product(house, scheme, layout) for layout in layouts}
    assert len({tuple(p) for p in products.values()}) == 1, products


def check_own_file(house):
    path = house.path("own.gguf")
    shutil.copyfile(MODEL, path)
    assert talk(house, model=path, temp=0) == talk(house, temp=0)


def check_long_prompt(house):
    """More tokens than are computed at once, and then until the model's context is full."""
    words = "and the LORD said unto Moses, " * 12
    end = talk(house, prompt=words, tokens=1000, temp=0, ignore_eos=1)
    assert len(end) > len(words)
    done = run(house, CHAT, "--model", "tiny-kjv", "--scheme", "q8_0", "--layout", "portable", "--prompt", words * 4)
    assert done.returncode and "1 to 256 are possible" in done.stderr, done.stderr


# What another model would say, in a copy of this one: bytes before, bytes after, the refusal.
OTHER_MODELS = (
    (b"architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama", b"architecture\x08\0\0\0\x05\0\0\0\0\0\0\0other", "architecture llama alone"),
    (b"ggml.model\x08\0\0\0\x05\0\0\0\0\0\0\0llama", b"ggml.model\x08\0\0\0\x05\0\0\0\0\0\0\0other", "tokenizer `llama`"),
    (b"blk.1.attn_q.", b"blk.1.attn_z.", "no tensor 'blk.1.attn_q.weight'"),
    (b"block_count\x04\0\0\0\x02", b"block_count\x04\0\0\0\x01", "9 of the model's 20 tensors have no place"),
)


def check_other_models(house):
    with open(MODEL, "rb") as f:
        data = f.read()
    for before, after, refusal in OTHER_MODELS:
        assert data.count(before) == 1, before
        with open(house.path("other.gguf"), "wb") as f:
            f.write(data.replace(before, after))
        done = run(house, CHAT, "--model", house.path("other.gguf"), "--scheme", "bf16", "--layout", "portable")
        assert done.returncode and refusal in done.stderr, done.stderr


with House(DAEMON, WORKER, QUANTCTL) as house:
    house.add(MODEL)
    house.start()
    house.until_ready("tiny-kjv")
    for scheme, share in (("f32", 1e-6), ("bf16", 1e-6), ("q8_0", 0.01), ("q4_k_m", 0.05), ("q4_0", 0.1)):
        tap.case(f"matmul.c: {scheme} is near the product of the source's weights", lambda: check_product(house, scheme, share))
    layouts = [layout for layout in LAYOUTS if is_served(house, layout)]
    assert {"portable", "native"} <= set(layouts), layouts
    for scheme in ("q8_0", "q4_0", "q4_k_m", "q6_k"):
        tap.case(f"matmul.c: {scheme} gives the same numbers in every layout: {', '.join(layouts)}", lambda: check_same_product(house, scheme, layouts))
    tap.case("matmul.c: tensors that are no matrices are refused with a reason", lambda: check_mistakes(house))
    tap.case("chat.c: a seed makes the text, temperature 0 needs none", lambda: check_seeds(house))
    tap.case("chat.c: threads change nothing", lambda: check_threads(house))
    for scheme in ("q8_0", "q4_0", "q4_k_m", "q6_k", "f16"):
        tap.case(f"chat.c: {scheme} computes the same bits in every layout: {', '.join(layouts)}", lambda: check_layouts(house, scheme, layouts))
    tap.case("chat.c: a file of one's own, by its path", lambda: check_own_file(house))
    tap.case("chat.c: a long prompt, to the end of the context", lambda: check_long_prompt(house))
    tap.case("chat.c: models that it cannot run are refused", lambda: check_other_models(house))
    tap.end()
