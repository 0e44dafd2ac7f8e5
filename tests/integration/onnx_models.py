#!/usr/bin/env python3
"""ONNX models through quantctl's one-shot form: what comes out runs as before, what cannot is refused by name.

usage: onnx_models.py WORKER RUN_MODEL
"""
import base64
import json
import math
import os
import re
import resource
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import onnx_file as onnx
import tap
from onnx_network import CHANNELS, CLASSES, SIZE, gauss, network, rng

WORKER, RUN_MODEL = (os.path.abspath(p) for p in sys.argv[1:3])
EX_USAGE, EX_DATAERR, EX_CANTCREAT = 64, 65, 73


def put(path, content):
    with open(path, "wb") as f:
        f.write(content)
    return path


def quantize(*arguments, worker=None, **more):
    return subprocess.run([*(worker or [WORKER]), "--direct", *arguments], capture_output=True, text=True, **more)


def expect(done, status, *words):
    said = done.stdout + done.stderr
    if done.returncode != status:
        raise AssertionError(f"status {done.returncode}, not {status}: {said}")
    for word in words:
        if word not in said:
            raise AssertionError(f"'{word}' is not in: {said}")


def run(model, sample, folder):
    done = subprocess.run([RUN_MODEL, model, f"{folder}/out", f"x=float32:1x3x{SIZE}x{SIZE}:{put(folder + '/in', sample)}"],
                          capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(done.stderr)
    with open(f"{folder}/out.0.bin", "rb") as f:
        content = f.read()
    return struct.unpack(f"<{len(content) // 4}f", content)


def loss(folder, model):
    """max |difference| / max |reference| over some samples."""
    worst = 0.0
    for seed in range(4):
        rng.seed(100 + seed)
        sample = gauss(3 * SIZE * SIZE)
        a, b = run(f"{folder}/m.onnx", sample, folder), run(model, sample, folder)
        worst = max(worst, max(abs(p - q) for p, q in zip(a, b)) / max(abs(p) for p in a))
    return worst


def samples(folder, n=8):
    os.makedirs(f"{folder}/data", exist_ok=True)
    for i in range(n):
        rng.seed(i)
        put(f"{folder}/data/{i}.npy", onnx.npy([1, 3, SIZE, SIZE], gauss(3 * SIZE * SIZE)))
    return f"{folder}/data"


def weights_alone(folder):
    for scheme, bar, word in (("int8-weight", 0.02, b"int8-weight"), ("f16", 0.002, b"Cast"), ("bf16", 0.02, b"Cast"),
                              ("int4", 0.25, b"MatMulNBits")):
        out = f"{folder}/{scheme}.onnx"
        expect(quantize(f"{folder}/m.onnx", out, "--scheme", scheme), 0, "weights quantized")
        with open(out, "rb") as f:
            content = f.read()
        if scheme == "int8-weight" and any(w not in content for w in (b"w1_quantized_", b"w1_scale_", b"w1_wide_", b"Mul")):
            raise AssertionError("w1 is no product of codes and scales")
        if word not in content or os.path.getsize(out + ".data") % 4 or loss(folder, out) > bar:
            raise AssertionError(f"{scheme}: {word} or a loss of {loss(folder, out)}")


def four_bits_in_both_forms(folder):
    """Opset 21's DequantizeLinear with blocks holds the codes of MatMulNBits; rows and blocks of odd numbers, and a bias, too."""
    n, k = 7, 3 * SIZE * SIZE + 1
    nodes = [onnx.node("Flatten", ["x"], ["f"]), onnx.node("Concat", ["f", "one"], ["g"], axis=1), onnx.node("MatMul", ["g", "w1"], ["a"]),
             onnx.node("Gemm", ["g", "w2", "b2"], ["c"], transB=1), onnx.node("Add", ["a", "c"], ["y"])]
    content = onnx.graph(nodes, [onnx.value("x", [1, 3, SIZE, SIZE])], [onnx.value("y", [1, n])],
                         [onnx.tensor("one", [1, 1], onnx.floats([1])), onnx.tensor("w1", [k, n], gauss(k * n)), onnx.tensor("w2", [n, k], gauss(k * n)),
                          onnx.tensor("b2", [n], gauss(n))])
    for more in ([], ["--asymmetric"], ["--block", "128"], ["--block", "64", "--asymmetric"]):
        results, sample = [], gauss(3 * SIZE * SIZE)
        for opset in (17, 21):
            put(f"{folder}/m.onnx", onnx.model(content, opset))
            out = f"{folder}/nibbles{opset}.onnx"
            expect(quantize(f"{folder}/m.onnx", out, "--force", "--scheme", "int4", *more), 0)
            with open(out, "rb") as f:
                made = f.read()
            if (b"MatMulNBits" in made) == (opset == 21) or (b"block_size" not in made):
                raise AssertionError(f"opset {opset} has the other form")
            results.append(run(out, sample, folder))
        if max(abs(p - q) for p, q in zip(*results)) > 1e-4 * max(abs(p) for p in results[0]):
            raise AssertionError(f"{more}: {results}")
        if b"Gemm" in made or made.count(b"block_size") != 2:
            raise AssertionError("the Gemm with its bias is none with 4 bits")
        if loss(folder, out) > 0.3:
            raise AssertionError(f"{more}: a loss of {loss(folder, out)}")


def weights_that_move_first(folder):
    """Matrices that are turned or stacked on their way to an LSTM or a product are weights, too."""
    hidden, width = 16, 3 * SIZE
    nodes = [onnx.node("Reshape", ["x", "shape"], ["rows"]), onnx.node("Unsqueeze", ["w0", "axes"], ["u0"]), onnx.node("Unsqueeze", ["w1", "axes"], ["u1"]),
             onnx.node("Concat", ["u0", "u1"], ["w"], axis=0), onnx.node("Unsqueeze", ["r0", "axes"], ["v0"]), onnx.node("Concat", ["v0", "r1"], ["r"], axis=0),
             onnx.node("LSTM", ["rows", "w", "r"], ["h"], hidden_size=hidden, direction="bidirectional"), onnx.node("Reshape", ["h", "flat"], ["g"]),
             onnx.node("Transpose", ["m"], ["t"], perm=[1, 0]), onnx.node("MatMul", ["g", "t"], ["y"])]
    gates = 4 * hidden
    constants = [onnx.tensor("shape", [3], struct.pack("<3q", SIZE, 1, width), onnx.INT64), onnx.tensor("axes", [1], struct.pack("<q", 0), onnx.INT64),
                 onnx.tensor("flat", [2], struct.pack("<2q", SIZE, 2 * hidden), onnx.INT64), onnx.tensor("w0", [gates, width], gauss(gates * width, 0.2)),
                 onnx.tensor("w1", [gates, width], gauss(gates * width, 0.2)), onnx.tensor("r0", [gates, hidden], gauss(gates * hidden, 0.2)),
                 onnx.tensor("r1", [1, gates, hidden], gauss(gates * hidden, 0.2)), onnx.tensor("m", [CLASSES, 2 * hidden], gauss(CLASSES * 2 * hidden))]
    put(f"{folder}/m.onnx", onnx.model(onnx.graph(nodes, [onnx.value("x", [1, 3, SIZE, SIZE])], [onnx.value("y", [SIZE, CLASSES])], constants)))
    for scheme, bar, *more in (("int8-weight", 0.05), ("int8-static", 0.05, "--calibration", samples(folder)), ("int8-dynamic", 0.05), ("int4", 0.05), ("f16", 0.005)):
        out = f"{folder}/moving.onnx"
        done = quantize(f"{folder}/m.onnx", out, "--force", "--scheme", scheme, "--json", *more)
        expect(done, 0)
        said = json.loads(done.stdout)
        if said["quantized"] != 5 or {t["name"] for t in said["tensors"]} != {"w0", "w1", "r0", "r1", "m"}:
            raise AssertionError(f"{scheme}: {said}")
        if loss(folder, out) > bar:
            raise AssertionError(f"{scheme}: a loss of {loss(folder, out)}")


def weights_of_functions(folder):
    """What a function of the model's own takes as a weight, perhaps through another, is one."""
    inner = onnx.function("Dense", ["a", "b", "c"], ["d"], [onnx.node("Gemm", ["a", "b", "c"], ["d"], transB=1)])
    outer = onnx.function("Block", ["a", "b", "c", "e"], ["d"], [onnx.node("Dense", ["a", "b", "c"], ["h"], domain="local"), onnx.node("Relu", ["h"], ["i"]),
                                                                 onnx.node("MatMul", ["i", "e"], ["d"])])
    k = 3 * SIZE * SIZE
    nodes = [onnx.node("Flatten", ["x"], ["f"]), onnx.node("Block", ["f", "w1", "b1", "w2"], ["y"], domain="local")]
    constants = [onnx.tensor("w1", [CHANNELS, k], gauss(CHANNELS * k, 0.1)), onnx.tensor("b1", [CHANNELS], gauss(CHANNELS)),
                 onnx.tensor("w2", [CHANNELS, CLASSES], gauss(CHANNELS * CLASSES))]
    content = onnx.graph(nodes, [onnx.value("x", [1, 3, SIZE, SIZE])], [onnx.value("y", [1, CLASSES])], constants)
    put(f"{folder}/m.onnx", onnx.model(content, more=inner + outer))
    out = f"{folder}/functions.onnx"
    for scheme, bar in (("int8-weight", 0.05), ("int4", 0.05), ("f16", 0.005)):
        done = quantize(f"{folder}/m.onnx", out, "--force", "--scheme", scheme)
        expect(done, 0)
        expect(quantize(f"{folder}/m.onnx", "--dry-run", "--scheme", scheme), 0, *(["int8 by axis 0", "int8 by axis 1"] if scheme != "f16" else []))
        if loss(folder, out) > bar:
            raise AssertionError(f"{scheme}: a loss of {loss(folder, out)}")


def deep_graphs(folder):
    """A chain of nodes in any order, on a stack of 256 KiB; what is too much is refused by what it needs."""
    def small_stack():
        resource.setrlimit(resource.RLIMIT_STACK, (256 << 10, 256 << 10))

    put(f"{folder}/in", onnx.floats([0.5] * 32))
    for n, fits in ((100_000, True), (1_000_000, False)):
        order = list(range(n))
        rng.shuffle(order)
        chain = b"".join(b"\x0a\x1d\x0a\x08n%07d\x12\x08n%07d\x22\x07Sigmoid" % (i, i + 1) for i in order)
        content = (onnx.data(1, onnx.node("MatMul", ["x", "w"], ["n0000000"])) + chain + onnx.data(2, "g") +
                   onnx.data(5, onnx.tensor("w", [32, 32], gauss(1024))) + onnx.data(11, onnx.value("x", [1, 32])) +
                   onnx.data(12, onnx.value(f"n{n:07}", [1, 32])))
        put(f"{folder}/deep.onnx", onnx.model(content))
        out = f"{folder}/deep-out.onnx"
        done = quantize(f"{folder}/deep.onnx", out, "--force", "--scheme", "int8-weight", preexec_fn=small_stack)
        expect(done, 0 if fits else EX_DATAERR, *(() if fits else ("deep.onnx", "more memory than a model may use")))
        if fits:
            expect(subprocess.run([RUN_MODEL, out, f"{folder}/out", f"x=float32:1x32:{folder}/in"], capture_output=True, text=True, preexec_fn=small_stack), 0)


def activations_too(folder):
    out = f"{folder}/static.onnx"
    for method in ("percentile", "min-max", "mse", "entropy", "average"):
        expect(quantize(f"{folder}/m.onnx", out, "--force", "--scheme", "int8-static", "--calibration", samples(folder), "--method", method), 0)
        if loss(folder, out) > 0.1:
            raise AssertionError(f"{method}: a loss of {loss(folder, out)}")
    with open(out, "rb") as f:
        content = f.read()
    if content.count(b"QuantizeLinear") < 8 or b"b1_quantized" not in content:
        raise AssertionError("no activations or biases are quantized")


def the_error_is_told(folder):
    """Of outputs and of results within, over the samples: as these figures say when they are made here again."""
    data, out = samples(folder), f"{folder}/told.onnx"
    for scheme in ("int8-static", "int8-weight", "f16"):
        done = quantize(f"{folder}/m.onnx", out, "--force", "--json", "--scheme", scheme, "--calibration", data)
        expect(done, 0)
        told = json.loads(done.stdout)["comparison"]
        signal = noise = dot = other = 0.0
        for name in sorted(os.listdir(data)):
            with open(f"{data}/{name}", "rb") as f:
                sample = f.read()[-4 * 3 * SIZE * SIZE:]
            exact, made = run(f"{folder}/m.onnx", sample, folder), run(out, sample, folder)
            signal += sum(x * x for x in exact)
            other += sum(y * y for y in made)
            dot += sum(x * y for x, y in zip(exact, made))
            noise += sum((x - y) ** 2 for x, y in zip(exact, made))
        sqnr, cosine = 10 * math.log10(signal / noise), dot / math.sqrt(signal * other)
        first = told["outputs"][0]
        if told["samples"] != 8 or abs(first["sqnr_db"] - sqnr) > 0.01 or abs(first["cosine"] - cosine) > 1e-6:
            raise AssertionError(f"{scheme}: {first} of {told['samples']} samples, where {sqnr} dB and {cosine} are right")
        if not told["worst"] or told["worst"] != sorted(told["worst"], key=lambda v: v["sqnr_db"]):
            raise AssertionError(f"{scheme}: {told['worst']}")
    os.makedirs(f"{folder}/empty", exist_ok=True)
    expect(quantize(f"{folder}/m.onnx", out, "--force", "--scheme", "int8-weight", "--calibration", f"{folder}/empty"), 0,
           "not compared with the source's")


def files_of(out):
    return [open(p, "rb").read() for p in (out, out + ".data")]


def statistics_are_kept(folder):
    """From samples, from their statistics, and from those of some and the other samples: the same bytes."""
    data, m, out = samples(folder), f"{folder}/m.onnx", f"{folder}/kept.onnx"
    static = ["--force", "--scheme", "int8-static"]
    for part, names in (("some", sorted(os.listdir(data))[:3]), ("rest", sorted(os.listdir(data))[3:])):
        os.makedirs(f"{folder}/{part}")
        for name in names:
            os.link(f"{data}/{name}", f"{folder}/{part}/{name}")
    expect(quantize(m, out, *static, "--calibration", data, "--save-statistics", f"{folder}/all.stats"), 0)
    right = files_of(out)
    expect(quantize(m, out, *static, "--statistics", f"{folder}/all.stats"), 0)
    if files_of(out) != right:
        raise AssertionError("from the statistics: other bytes")
    expect(quantize(m, out, *static, "--calibration", f"{folder}/some", "--save-statistics", f"{folder}/some.stats"), 0)
    if files_of(out) == right:
        raise AssertionError("some samples make the same file as all")
    expect(quantize(m, out, *static, "--statistics", f"{folder}/some.stats", "--calibration", f"{folder}/rest"), 0)
    if files_of(out) != right:
        raise AssertionError("from statistics and other samples: other bytes")
    expect(quantize(m, out, *static, "--statistics", f"{folder}/some.stats", "--calibration", f"{folder}/some"), EX_USAGE, "some")
    expect(quantize(m, f"{folder}/new.onnx", "--scheme", "int8-static", "--calibration", data, "--save-statistics",
                    f"{folder}/all.stats"), EX_CANTCREAT, "all.stats", "--force")
    put(f"{folder}/renamed.onnx", open(m, "rb").read())
    expect(quantize(f"{folder}/renamed.onnx", out, *static, "--statistics", f"{folder}/all.stats"), 0)
    put(f"{folder}/other.onnx", network(opset=18))
    refused = f"{folder}/refused.onnx"
    for model, arguments, status, word in ((f"{folder}/other.onnx", ["--statistics", f"{folder}/all.stats"], EX_USAGE, "another model"),
                                           (m, ["--statistics", f"{folder}/none"], 66, "none"),
                                           (m, ["--statistics", folder], EX_USAGE, "no file of statistics"),
                                           (m, ["--statistics", m], EX_DATAERR, "m.onnx")):
        expect(quantize(model, refused, "--scheme", "int8-static", *arguments), status, word)
    cut = open(f"{folder}/all.stats", "rb").read()
    put(f"{folder}/cut.stats", cut[:len(cut) // 2])
    expect(quantize(m, refused, "--scheme", "int8-static", "--statistics", f"{folder}/cut.stats"), EX_DATAERR, "cut.stats")
    expect(quantize(m, refused, "--scheme", "int8-weight", "--statistics", f"{folder}/all.stats"), EX_USAGE, "no use for statistics")
    if os.path.exists(refused):
        raise AssertionError("a file was made")


def cancel_while_calibrating(folder):
    """SIGINT ends it soon, and leaves nothing."""
    data = samples(folder)
    for i in range(8, 20000):  # seconds of work
        os.link(f"{data}/{i % 8}.npy", f"{data}/{i}.npy")
    run = subprocess.Popen([WORKER, "--direct", f"{folder}/m.onnx", f"{folder}/c.onnx", "--scheme", "int8-static", "--calibration", data],
                           stderr=subprocess.PIPE, text=True)
    time.sleep(0.4)
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=20)[1]
    if run.returncode == 0 or "cancelled" not in said or [n for n in os.listdir(folder) if n.startswith("c.onnx")]:
        raise AssertionError(f"status {run.returncode}: {said}; {os.listdir(folder)}")


def int8_says_what_it_chose(folder):
    done = quantize(f"{folder}/m.onnx", f"{folder}/any.onnx", "--json", "--scheme", "int8", "--calibration", samples(folder))
    expect(done, 0)
    told = json.loads(done.stdout)
    form = "int8-static" if "outputs at" in told["why"] else "int8-weight"
    if told["scheme"] != form or "int8-static would take" not in told["why"] or "times float32's time" not in told["why"]:
        raise AssertionError(f"{told['scheme']}: {told['why']}")


def other_floats(folder):
    """Weights of float16, bfloat16 and float64 become int8, and what their operators take is of their type still."""
    n = 3 * SIZE * SIZE
    weights = [rng.gauss(0, 0.1) for _ in range(n * CLASSES)]
    half = struct.pack(f"<{len(weights)}e", *weights)
    brain = b"".join(struct.pack("<f", w)[2:] for w in weights)
    for name, kind, raw in (("float16", 10, half), ("bfloat16", 16, brain), ("float64", 11, struct.pack(f"<{len(weights)}d", *weights))):
        nodes = [onnx.node("Flatten", ["x"], ["f"]), onnx.node("Cast", ["f"], ["c"], to=kind),
                 onnx.node("MatMul", ["c", "w"], ["p"]), onnx.node("Cast", ["p"], ["y"], to=1)]
        content = onnx.graph(nodes, [onnx.value("x", ["n", 3, SIZE, SIZE])], [onnx.value("y", ["n", CLASSES])],
                             [onnx.tensor("w", [n, CLASSES], raw, kind)])
        put(f"{folder}/m.onnx", onnx.model(content))
        for scheme, bar in (("int8-weight", 0.02), ("int8-static", 0.02), ("int8-dynamic", 0.02), ("int4", 0.02), ("f16", 0.002)):
            more = ["--calibration", samples(folder)] if scheme == "int8-static" else []
            done = quantize(f"{folder}/m.onnx", f"{folder}/q.onnx", "--force", "--json", "--scheme", scheme, *more)
            if scheme == "f16" and name != "float64":
                expect(done, EX_DATAERR, "no weight of the model can be quantized")
                continue
            expect(done, 0)
            told = json.loads(done.stdout)
            if told["quantized"] != 1 or told["tensors"][0]["type"] != name or loss(folder, f"{folder}/q.onnx") > bar:
                raise AssertionError(f"{name} {scheme}: {told['tensors'][0]}, a loss of {loss(folder, folder + '/q.onnx')}")


def normalisation_is_folded(folder):
    """Into scales, signs and biases of convolutions, whose results become codes for all who read them."""
    n = 16

    def norm(name, gammas):
        vectors = {"scale": gammas, "bias": [rng.gauss(0, 0.3) for _ in range(n)], "mean": [rng.gauss(0, 0.2) for _ in range(n)],
                   "var": [rng.uniform(0.5, 2) for _ in range(n)]}
        return [onnx.tensor(f"{name}_{k}", [n], onnx.floats(v)) for k, v in vectors.items()], [f"{name}_{k}" for k in vectors]

    for zero in (False, True):
        first, names1 = norm("n1", [rng.choice((-1, 1)) * rng.uniform(0.5, 1.5) for _ in range(n)])
        second, names2 = norm("n2", [0.0 if zero and i == 3 else rng.uniform(0.5, 1.5) for i in range(n)])
        nodes = [onnx.node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]), onnx.node("BatchNormalization", ["c1", *names1], ["m1"]),
                 onnx.node("Relu", ["m1"], ["r1"]), onnx.node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
                 onnx.node("BatchNormalization", ["c2", *names2], ["m2"]), onnx.node("Add", ["m2", "r1"], ["s"]),
                 onnx.node("Conv", ["s", "w3"], ["y"], pads=[2, 2, 2, 2], group=n)]
        constants = [onnx.tensor("w1", [n, 3, 3, 3], gauss(n * 27, 0.3)), onnx.tensor("w2", [n, n, 3, 3], gauss(n * n * 9, 0.1)),
                     onnx.tensor("b2", [n], gauss(n, 0.5)), onnx.tensor("w3", [n, 1, 5, 5], gauss(n * 25, 0.2)), *first, *second]
        content = onnx.graph(nodes, [onnx.value("x", ["n", 3, SIZE, SIZE])], [onnx.value("y", ["n", n, SIZE, SIZE])], constants)
        put(f"{folder}/m.onnx", onnx.model(content))
        out = f"{folder}/folded.onnx"
        expect(quantize(f"{folder}/m.onnx", out, "--force", "--scheme", "int8-static", "--calibration", samples(folder)), 0)
        with open(out, "rb") as f:
            made = f.read()
        left, pairs = made.count(b"\x22\x12BatchNormalization"), made.count(b"\x22\x0eQuantizeLinear")  # field 4 of a node: its type
        if left != (1 if zero else 0) or pairs != 5:  # x, r1, m2 (or c2), s, y
            raise AssertionError(f"{left} BatchNormalization and {pairs} QuantizeLinear are left")
        if loss(folder, out) > 0.1:
            raise AssertionError(f"a loss of {loss(folder, out)}")


def moved_values_keep_their_codes(folder):
    """One scale for what MaxPool, nearest Resize and Concat take and make; not for an input of Concat that would lose more than a bit."""
    n = 16
    nodes = [onnx.node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]), onnx.node("Relu", ["c1"], ["r1"]),
             onnx.node("MaxPool", ["r1"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]), onnx.node("Conv", ["pooled", "w2"], ["c2"], pads=[1, 1, 1, 1]),
             onnx.node("Resize", ["c2", "", "scales"], ["larger"], mode="nearest"), onnx.node("Concat", ["r1", "larger"], ["both"], axis=1),
             onnx.node("Conv", ["both", "w3"], ["c3"], pads=[1, 1, 1, 1]), onnx.node("Resize", ["c3", "", "scales"], ["smooth"], mode="linear"),
             onnx.node("Conv", ["smooth", "w4"], ["y"])]
    for size, shared in ((0.04, "r1 pooled c2 both"), (0.3, "c2 both"), (0.3, "r1 pooled")):
        constants = [onnx.tensor("w1", [n, 3, 3, 3], gauss(n * 27, 0.3)), onnx.tensor("w2", [n, n, 3, 3], gauss(n * n * 9, size)),
                     onnx.tensor("w3", [n, 2 * n, 3, 3], gauss(2 * n * n * 9, 0.1)), onnx.tensor("w4", [n, n, 1, 1], gauss(n * n, 0.1)),
                     onnx.tensor("scales", [4], onnx.floats([1, 1, 2, 2]))]
        content = onnx.graph(nodes, [onnx.value("x", ["n", 3, SIZE, SIZE])], [onnx.value("y", ["n", n, 2 * SIZE, 2 * SIZE])], constants)
        put(f"{folder}/m.onnx", onnx.model(content))
        out = f"{folder}/moved.onnx"
        expect(quantize(f"{folder}/m.onnx", out, "--force", "--scheme", "int8-static", "--calibration", samples(folder)), 0)
        with open(out, "rb") as f:
            made = f.read()
        found = {v: re.search(b"B.%s_scale_[0-9]+J\x04(....)" % v.encode(), made, re.DOTALL) for v in ("x", "r1", "pooled", "c2", "both", "c3", "smooth")}
        scale = {v: struct.unpack("<f", m[1])[0] for v, m in found.items() if m}
        others = {s for v, s in scale.items() if v not in shared.split()}
        if len(scale) != 7 or len({scale[v] for v in shared.split()}) != 1 or others & {scale[shared.split()[0]]}:
            raise AssertionError(f"{shared}: {scale}")
        if loss(folder, out) > 0.1:
            raise AssertionError(f"a loss of {loss(folder, out)}")


def an_old_opset_is_raised(folder):
    nodes = [onnx.node("Slice", ["x"], ["s"], starts=[0], ends=[2], axes=[1]), onnx.node("Conv", ["s", "w"], ["y"])]
    content = onnx.graph(nodes, [onnx.value("x", ["n", 3, SIZE, SIZE])], [onnx.value("y", ["n", 16, SIZE, SIZE])],
                         [onnx.tensor("w", [16, 2, 3, 3], gauss(16 * 18))])
    put(f"{folder}/m.onnx", onnx.model(content, 9))
    for more in (["int8-weight"], ["int8-static", "--calibration", samples(folder)]):
        expect(quantize(f"{folder}/m.onnx", f"{folder}/old.onnx", "--force", "--scheme", *more), 0)
        if loss(folder, f"{folder}/old.onnx") > 0.05:
            raise AssertionError(f"{more[0]}: a loss of {loss(folder, folder + '/old.onnx')}")


def same_bytes_everywhere(folder):
    ways = [([WORKER], threads, cpu) for threads in "13" for cpu in (None, "scalar", "-avx512")]
    ways += [(shlex.split(other), "2", None) for other in filter(None, os.environ.get("QUANTD_OTHER_WORKERS", "").split(";"))]
    contents = {}
    for worker, threads, cpu in ways:
        environment = dict(os.environ) if cpu is None else dict(os.environ, QUANTD_CPU=cpu)
        for scheme in (["int8-static", "--bits", "8", "--calibration", samples(folder)], ["int4"]):
            out = f"{folder}/s.onnx"
            expect(quantize(f"{folder}/m.onnx", out, "--force", "--threads", threads, "--scheme", *scheme, worker=worker,
                            env=environment), 0)
            with open(out, "rb") as f, open(out + ".data", "rb") as g:
                if contents.setdefault(scheme[0], known := (f.read(), g.read())) != known:
                    raise AssertionError(f"other bytes: {worker} {threads} threads, {cpu}, {scheme[0]}")
    print(f"# {len(ways)} ways")


def seven_bits_where_products_saturate(folder):
    out = f"{folder}/7.onnx"
    static = ["--force", "--scheme", "int8-static", "--calibration", samples(folder)]
    expect(quantize(f"{folder}/m.onnx", out, *static, env=dict(os.environ, QUANTD_CPU="-avx512,-avx512vnni,-avxvnni")), 0, "7 bits")
    with open(out + ".data", "rb") as f:
        of_cpu = f.read()
    expect(quantize(f"{folder}/m.onnx", out, *static, "--bits", "7"), 0)
    with open(out + ".data", "rb") as f:
        asked = f.read()
    if of_cpu != asked or loss(folder, out) > 0.1:
        raise AssertionError(f"other bytes, or a loss of {loss(folder, out)}")
    expect(quantize(f"{folder}/m.onnx", out, *static, "--bits", "6"), EX_USAGE, "'6' bits")


def says_json_and_why(folder):
    done = quantize(f"{folder}/m.onnx", f"{folder}/j.onnx", "--scheme", "int8-weight", "--json", "--keep", "w3")
    expect(done, 0)
    told = json.loads(done.stdout)
    kept = [t for t in told["tensors"] if t["name"] == "w3"][0]
    if told["quantized"] != 3 or "--keep" not in kept["reason"] or kept["sqnr_db"] is not None or told["sqnr_db"] < 30:
        raise AssertionError(told)
    expect(quantize(f"{folder}/m.onnx", "--dry-run", "--scheme", "int4"), 0, "blocks of 32", "int8 by axis 0", "bytes become")
    if os.path.exists(f"{folder}/OUT.onnx"):
        raise AssertionError("a dry run wrote")


def refuses_what_makes_no_sense(folder):
    out, m = f"{folder}/no.onnx", f"{folder}/m.onnx"
    expect(quantize(m, out, "--scheme", "q4_0"), EX_USAGE, "q4_0 is a scheme of GGUF", "int8-weight")
    expect(quantize(m, out, "--scheme", "int8-static"), EX_USAGE, "needs calibration data", "--calibration")
    expect(quantize(m, out, "--scheme", "int8-weight", "--calibration", f"{folder}/none"), 66, "none")
    expect(quantize(m, out, "--scheme", "int8-static", "--calibration", f"{folder}/none"), 66, "none")
    expect(quantize(m, out, "--scheme", "int4", "--block", "48"), EX_USAGE, "48", "32, 64 and 128")
    expect(quantize(m, out, "--scheme", "int8-weight", "--keep", "nothing"), EX_USAGE, "nothing", "matches no weight")
    os.makedirs(f"{folder}/bad")
    put(f"{folder}/bad/0.npy", onnx.npy([1, 3, SIZE], gauss(3 * SIZE)))
    expect(quantize(m, out, "--scheme", "int8-static", "--calibration", f"{folder}/bad"), EX_USAGE, "0.npy")
    put(f"{folder}/bad/0.npy", onnx.npy([1, 3, SIZE, SIZE], b"\x00\x00\xc0\x7f" * (3 * SIZE * SIZE)))
    expect(quantize(m, out, "--scheme", "int8-static", "--calibration", f"{folder}/bad"), EX_USAGE, "0.npy", "x")
    expect(quantize(m, f"{folder}/q.onnx", "--scheme", "int8-weight"), 0)
    expect(quantize(f"{folder}/q.onnx", out, "--scheme", "int8-weight"), EX_DATAERR, "quantized already", "quantd.scheme = int8-weight")
    expect(quantize(m, f"{folder}/q.onnx", "--scheme", "int8-weight"), EX_CANTCREAT, "--force")
    expect(quantize(m, m, "--force", "--scheme", "int8-weight"), EX_USAGE, "a file of the model itself")
    if os.path.exists(out) or os.path.exists(out + ".data"):
        raise AssertionError("something was left")


def external_data(folder):
    raw = gauss(CHANNELS * 27, 0.3)
    put(f"{folder}/w.bin", b"x" * 64 + raw)
    good = {"location": "w.bin", "offset": "64", "length": str(len(raw))}
    put(f"{folder}/m.onnx", network(external=good))
    expect(quantize(f"{folder}/m.onnx", f"{folder}/e.onnx", "--scheme", "int8-weight"), 0)
    if loss(folder, f"{folder}/e.onnx") > 0.02:
        raise AssertionError("a loss")
    os.makedirs(f"{folder}/weights/deep")
    put(f"{folder}/weights/deep/w.bin", b"x" * 64 + raw)
    put(f"{folder}/m.onnx", network(external={**good, "location": "weights/deep/w.bin"}))
    expect(quantize(f"{folder}/m.onnx", f"{folder}/e.onnx", "--force", "--scheme", "int8-weight"), 0)
    if loss(folder, f"{folder}/e.onnx") > 0.02:
        raise AssertionError("a loss with data in a folder beneath")
    for wrong, status, word in (({"location": "../w.bin"}, 77, "beneath"), ({"location": "/etc/passwd"}, 77, "beneath"),
                                ({"location": "weights/../w.bin"}, 77, "beneath"),
                                ({"location": "gone.bin"}, 66, "gone.bin"), ({"length": "99999"}, EX_DATAERR, "99999"),
                                ({"offset": "-1"}, EX_DATAERR, "no number"), ({"length": "4"}, EX_DATAERR, "4 bytes")):
        put(f"{folder}/m.onnx", network(external={**good, **wrong}))
        expect(quantize(f"{folder}/m.onnx", f"{folder}/no.onnx", "--scheme", "int8-weight"), status, word)


JPEG = base64.b64decode(  # 12 x 12 pixels, each [200, 30, 59] to libjpeg
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDA"
    "sKDAkKCgr/2wBDAQICAgICAgUDAwUKBwYHCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgr/wAARCAAM"
    "AAwDASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAj/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/8QAFQEBAQAAAAAAAAAAAAAAAAAABgn/xA"
    "AUEQEAAAAAAAAAAAAAAAAAAAAA/9oADAMBAAIRAxEAPwCTwAdUx//Z")
JPEG_PIXEL = [200, 30, 59]


def png(width, height, pixels):
    """@pixels: rows of red, green, blue."""
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    rows = b"".join(b"\0" + bytes(pixels[y * width * 3:(y + 1) * width * 3]) for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def pixels_of(seed, width, height):
    rng.seed(seed)
    return [rng.randrange(256) for _ in range(width * height * 3)]


def planes(pixels, width, columns, scale=1 / 255, mean=(0, 0, 0), std=(1, 1, 1), order=(0, 1, 2)):
    """What becomes of pictures that need no new pixels: @columns of each row, black for None, as a .npy."""
    height = len(pixels) // width // 3
    values = [((pixels[(y * width + x) * 3 + order[c]] if x is not None else 0) * scale - mean[c]) / std[c]
              for c in range(3) for y in range(height) for x in columns]
    return onnx.npy([1, 3, height, len(columns)], onnx.floats(values))


def same_as_arrays(folder, lines, samples, arrays, ending, model="m.onnx"):
    """Calibrated with samples and with what they should become: the same files."""
    made = []
    for kind, contents, suffix in (("samples", samples, ending), ("arrays", arrays, "npy")):
        shutil.rmtree(f"{folder}/{kind}", ignore_errors=True)
        os.makedirs(f"{folder}/{kind}")
        for i, content in enumerate(contents):
            put(f"{folder}/{kind}/{i}.{suffix}", content)
        if lines and kind == "samples":
            put(f"{folder}/samples/preprocess.ini", lines.encode())
        out = f"{folder}/from.onnx"
        expect(quantize(f"{folder}/{model}", out, "--force", "--scheme", "int8-static", "--method", "min-max", "--calibration",
                        f"{folder}/{kind}"), 0)
        made.append(files_of(out))
    if made[0] != made[1]:
        raise AssertionError(f"{lines!r}: other files than from arrays")
    return made[0]


def pictures(folder):
    if "built without libpng" in quantize(f"{folder}/m.onnx", f"{folder}/o.onnx", "--scheme", "int8-static", "--calibration",
                                          os.path.dirname(put(f"{os.makedirs(folder + '/one') or folder}/one/0.png", png(SIZE, SIZE, pixels_of(0, SIZE, SIZE))))).stderr:
        tap.left_out("pictures", "this quantd was built without libpng or libjpeg")
        return
    straight = list(range(SIZE))
    some = [pixels_of(i, SIZE, SIZE) for i in range(3)]
    plain = same_as_arrays(folder, "", [png(SIZE, SIZE, p) for p in some], [planes(p, SIZE, straight) for p in some], "png")
    lines = "# as ImageNet's\nscale = 0.0078125\n\nmean = 0.485 0.456, 0.406\nstd=0.229 0.224 0.225\nchannels = bgr\n"
    other = same_as_arrays(folder, lines, [png(SIZE, SIZE, p) for p in some],
                           [planes(p, SIZE, straight, 0.0078125, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (2, 1, 0)) for p in some], "png")
    if plain == other:
        raise AssertionError("preprocess.ini changes nothing")
    wide = [pixels_of(i, 2 * SIZE, SIZE) for i in range(3)]
    same_as_arrays(folder, "fit = crop", [png(2 * SIZE, SIZE, p) for p in wide],
                   [planes(p, 2 * SIZE, [x + SIZE // 2 for x in straight]) for p in wide], "png")
    half = [pixels_of(i, SIZE // 2, SIZE) for i in range(3)]
    same_as_arrays(folder, "fit = pad", [png(SIZE // 2, SIZE, p) for p in half],
                   [planes(p, SIZE // 2, list(range(SIZE // 2)) + [None] * (SIZE // 2)) for p in half], "png")
    large = [pixels_of(i, 2 * SIZE, 2 * SIZE) for i in range(3)]
    means = [[sum(p[((2 * y + dy) * 2 * SIZE + 2 * x + dx) * 3 + c] for dy in (0, 1) for dx in (0, 1)) / 4
              for y in straight for x in straight for c in range(3)] for p in large]
    same_as_arrays(folder, "", [png(2 * SIZE, 2 * SIZE, p) for p in large], [planes(p, SIZE, straight) for p in means], "png")
    same_as_arrays(folder, "", [JPEG], [planes(JPEG_PIXEL * SIZE * SIZE, SIZE, straight)], "jpg")
    static = ["--scheme", "int8-static", "--calibration", f"{folder}/bad"]
    os.makedirs(f"{folder}/bad")
    for name, content, lines, status, words in (
            ("cut.png", png(SIZE, SIZE, some[0])[:200], "", EX_DATAERR, ("cut.png", "PNG")), ("cut.jpg", JPEG[:-40], "", EX_DATAERR, ("cut.jpg", "JPEG")),
            ("no.jpg", b"not one", "", EX_DATAERR, ("no.jpg", "neither")),
            ("0.png", png(SIZE, SIZE, some[0]), "size = 0x3", EX_USAGE, ("preprocess.ini", "line 1", "size")),
            ("0.png", png(SIZE, SIZE, some[0]), "\nstd = 1 2", EX_USAGE, ("line 2",)), ("0.png", png(SIZE, SIZE, some[0]), "std = 0", EX_USAGE, ("line 1",)),
            ("0.png", png(SIZE, SIZE, some[0]), "channels = gray", EX_USAGE, ("3 channels", "1")),
            ("0.png", png(SIZE, SIZE, some[0]), "size = 14x14", EX_USAGE, ("dimension",))):
        shutil.rmtree(f"{folder}/bad")
        os.makedirs(f"{folder}/bad")
        put(f"{folder}/bad/{name}", content)
        if lines:
            put(f"{folder}/bad/preprocess.ini", lines.encode())
        expect(quantize(f"{folder}/m.onnx", f"{folder}/no.onnx", *static), status, *words)


def wave_file(samples, rate=16000, channels=1, kind=1, bits=16):
    packed = struct.pack(f"<{len(samples)}{'h' if kind == 1 else 'f'}", *samples)
    form = struct.pack("<2H2I2H", kind, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"data" + struct.pack("<I", len(packed)) + packed
    return b"RIFF" + struct.pack("<I", len(body)) + body


def sounds(folder):
    nodes = [onnx.node("MatMul", ["x", "w"], ["h"]), onnx.node("Relu", ["h"], ["r"]), onnx.node("MatMul", ["r", "v"], ["y"])]
    put(f"{folder}/s.onnx", onnx.model(onnx.graph(nodes, [onnx.value("x", [1, 64])], [onnx.value("y", [1, CLASSES])],
                                                  [onnx.tensor("w", [64, 64], gauss(64 * 64)), onnx.tensor("v", [64, CLASSES], gauss(64 * CLASSES))])))
    rng.seed(9)
    some = [[rng.randrange(-32768, 32768) for _ in range(n)] for n in (64, 100, 40)]
    fitted = [(s + [0] * 64)[:64] for s in some]
    same_as_arrays(folder, "rate = 16000", [wave_file(s) for s in some], [onnx.npy([1, 64], onnx.floats([x / 32768 for x in s])) for s in fitted], "wav", "s.onnx")
    same_as_arrays(folder, "scale = 32768", [wave_file(s) for s in some], [onnx.npy([1, 64], onnx.floats(s)) for s in fitted], "wav", "s.onnx")
    pairs = [[v for x in s for v in (x / 65536, x / 65536)] for s in some]
    same_as_arrays(folder, "", [wave_file(s, channels=2, kind=3, bits=32) for s in pairs],
                   [onnx.npy([1, 64], onnx.floats([x / 65536 for x in s])) for s in fitted], "wav", "s.onnx")
    for content, lines, words in ((wave_file(some[0])[:80], "", ("chunk",)), (wave_file(some[0], bits=8), "", ("8 bits",)), (b"RIFF", "", ("no WAV",)),
                                  (wave_file(some[0]), "rate = 8000", ("16000 Hz", "8000"))):
        put(f"{folder}/samples/0.wav", content)
        put(f"{folder}/samples/preprocess.ini", lines.encode() or b"# nothing")
        done = quantize(f"{folder}/s.onnx", f"{folder}/no.onnx", "--scheme", "int8-static", "--calibration", f"{folder}/samples")
        if done.returncode == 0 or any(w not in done.stderr for w in ("0.wav",) + words):
            raise AssertionError(f"{done.returncode}: {done.stderr}")


for check in (weights_alone, four_bits_in_both_forms, weights_that_move_first, weights_of_functions, deep_graphs, activations_too, the_error_is_told, other_floats, statistics_are_kept, cancel_while_calibrating, int8_says_what_it_chose, normalisation_is_folded,
              moved_values_keep_their_codes, an_old_opset_is_raised,
              same_bytes_everywhere, seven_bits_where_products_saturate, says_json_and_why,
              refuses_what_makes_no_sense, external_data, pictures, sounds):
    with tempfile.TemporaryDirectory() as work:
        rng.seed(5)
        put(f"{work}/m.onnx", network())
        tap.case(f"onnx {check.__name__.replace('_', ' ')}", lambda: check(work))
tap.end()
