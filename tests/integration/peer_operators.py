#!/usr/bin/env python3
"""Operators of our executor beside ONNX Runtime, each in a model of one node, on attributes and inputs by a fixed seed.

usage: peer_operators.py RUN_MODEL [ROUNDS]
Needs QUANTD_PEERS with onnxruntime-node (./dev peers) and Debian's python3-onnx; without them nothing is compared. Floats
may differ by BAR of the largest one, codes and sums of integers by nothing.
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "peers"))
import ort  # noqa: E402

NAMES = {"f4": "float32", "u1": "uint8", "i1": "int8", "i4": "int32", "i8": "int64"}
KINDS = {name: kind for kind, name in NAMES.items()}
BAR = 1e-5


class Maker:
    """Inputs and choices of one seed."""

    def __init__(self, seed):
        self.rng = numpy.random.RandomState(seed)

    def any(self, *choices):
        return choices[self.rng.randint(len(choices))]

    def count(self, low, high):
        return int(self.rng.randint(low, high + 1))

    def floats(self, *shape):
        return self.rng.standard_normal(shape).astype("f4")

    def positive(self, *shape):
        return (numpy.abs(self.floats(*shape)) + 0.01).astype("f4")

    def codes(self, kind, *shape):
        low, high = (0, 256) if kind == "u1" else (-128, 128)
        return self.rng.randint(low, high, shape).astype(kind)


def scalar(x):
    return numpy.array(x, "f4")


def resize(m):
    """align_corners only with sizes: with scales that give no whole length ONNX's own data contradict ONNX Runtime."""
    x = m.floats(1, 2, m.count(2, 9), m.count(2, 9))
    attrs = {"mode": m.any("nearest", "linear", "cubic"), "coordinate_transformation_mode": m.any(
        "half_pixel", "pytorch_half_pixel", "asymmetric", "half_pixel_symmetric", "align_corners")}
    if attrs["mode"] == "nearest":
        attrs["nearest_mode"] = m.any("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    else:
        attrs["antialias"] = int(attrs["coordinate_transformation_mode"] != "align_corners" and m.any(0, 1))
    if attrs["mode"] == "cubic":
        attrs["exclude_outside"] = m.any(0, 1)
    if attrs["coordinate_transformation_mode"] == "align_corners" or m.any(0, 1):
        return "Resize", [x, None, None, numpy.array([1, 2, m.count(1, 14), m.count(1, 14)], "i8")], 19, attrs
    scales = numpy.array([1, 1, m.any(.5, .6, 1.5, 2, 3, .75), m.any(.5, .6, 1.5, 2, 3)], "f4")
    return "Resize", [x, None, scales], 19, attrs


def recurrent(m, op, gates, activations):
    batch, length, width, hidden = m.count(1, 3), m.count(1, 6), m.count(1, 9), m.count(1, 17)
    attrs = {"direction": m.any("forward", "reverse", "bidirectional"), "hidden_size": hidden}
    n = 2 if attrs["direction"] == "bidirectional" else 1
    lengths = numpy.array([m.count(1, length) for _ in range(batch)], "i4")
    inputs = [m.floats(length, batch, width), m.floats(n, gates * hidden, width), m.floats(n, gates * hidden, hidden),
              m.any(None, m.floats(n, 2 * gates * hidden)), m.any(None, lengths), m.floats(n, batch, hidden)]
    if op == "LSTM":
        inputs += [m.floats(n, batch, hidden), m.any(None, m.floats(n, 3 * hidden))]
    if op == "GRU":
        attrs["linear_before_reset"] = m.any(0, 1)
    if m.any(0, 1):
        attrs["clip"] = 0.7
    if m.any(0, 1):
        attrs["activations"] = activations * n
    return op, inputs, 14, attrs


def normalisations(m):
    x = m.floats(2, 6, 5, 4) * 3
    yield "Softmax", [x], m.any(11, 13), {"axis": m.count(-3, 3)}
    yield "LogSoftmax", [x], 13, {"axis": m.count(-3, 3)}
    yield "LayerNormalization", [x, m.floats(5, 4), m.floats(5, 4)], 17, {"axis": 2}
    yield "InstanceNormalization", [x, m.floats(6), m.floats(6)], 13, {}
    yield "GroupNormalization", [x, m.floats(6), m.floats(6)], 21, {"num_groups": m.any(1, 2, 3, 6)}
    yield "BatchNormalization", [x, m.floats(6), m.floats(6), m.floats(6), m.positive(6)], 15, {}
    yield "MeanVarianceNormalization", [x], 13, {"axes": [0, 2, 3]}
    yield "LRN", [x], 13, {"size": m.any(3, 5), "alpha": 0.1}
    yield "com.microsoft.SkipLayerNormalization", [m.floats(2, 3, 8), m.floats(*m.any((2, 3, 8), (3, 8))), m.floats(8),
                                                   m.any(None, m.floats(8)), m.any(None, m.floats(8))], 17, {}
    yield "com.microsoft.SkipSimplifiedLayerNormalization", [m.floats(2, 3, 8), m.floats(2, 3, 8), m.floats(8),
                                                             m.any(None, m.floats(8))], 17, {}
    yield "DFT", [m.floats(2, m.any(16, 15), 1)], 17, {"axis": 1}
    yield "STFT", [m.floats(2, 64, 1), numpy.array(8, "i8"), m.positive(16)], 17, {}


def others(m):
    x = m.floats(2, 3, m.count(2, 7), m.count(2, 7))
    grid = (m.rng.random_sample((2, m.count(1, 5), m.count(1, 5), 2)) * 3 - 1.5).astype("f4")
    yield "GridSample", [x, grid], 16, {"mode": m.any("bilinear", "nearest", "bicubic"), "align_corners": m.any(0, 1),
                                        "padding_mode": m.any("zeros", "border", "reflection")}
    a, b, c, d = (m.count(1, 6) for _ in range(4))
    equation, *shapes = m.any(("abc,abd->acd", (a, b, c), (a, b, d)), ("abcd,abed->abce", (a, b, c, d), (a, b, 5, d)), ("...a,ab->...b", (c, d, a), (a, b)),
                              ("abc,d", (a, b, c), (d,)), ("aab->b", (a, a, b)), ("ab,bc,cd->ad", (a, b), (b, c), (c, d)), ("ba", (b, a)),
                              ("...ab,...bc->...ac", (c, a, b), (1, b, d)), ("Ab,bA->", (a, b), (b, a)))
    yield "Einsum", [m.floats(*s) for s in shapes], 12, {"equation": equation}
    yield "Hardmax", [m.floats(2, 3, 4)], m.any(11, 13), {"axis": m.count(-3, 2)}
    n = m.count(1, 40)
    boxes = m.rng.random_sample((2, n, 4)).astype("f4")
    scores = (m.rng.randint(0, 12, (2, 3, n)) / 12).astype("f4")  # some alike
    yield "NonMaxSuppression", [boxes, scores, numpy.array([m.count(0, 10)], "i8"), scalar([m.any(0, .3, .5)]), m.any(None, scalar([.4]))], 11, {
        "center_point_box": m.any(0, 1)}


def quantized(m):
    def point(kind):
        return m.codes(kind, 1).reshape(())
    yield "QuantizeLinear", [m.floats(2, 6, 5), m.positive(6), m.codes("u1", 6)], 13, {"axis": 1}
    yield "DequantizeLinear", [m.codes("i1", 2, 6, 5), m.positive(6), m.codes("i1", 6)], 13, {"axis": 1}
    yield "DynamicQuantizeLinear", [m.floats(5, 7)], 11, {}
    yield "MatMulInteger", [m.codes("u1", 3, 7, 50), m.codes("i1", 50, 9), point("u1"), m.codes("i1", 9)], 10, {}
    yield "QLinearMatMul", [m.codes("u1", 7, 50), scalar(.02), point("u1"), m.codes("i1", 50, 9), scalar(.01), point("i1"),
                            scalar(.4), point("u1")], 10, {}
    yield "ConvInteger", [m.codes("u1", 2, 4, 9, 8), m.codes("u1", 6, 2, 3, 3), point("u1"), point("u1")], 10, {
        "group": 2, "pads": [1, 0, 1, 2], "strides": [1, 2]}
    yield "QLinearConv", [m.codes("u1", 2, 4, 9, 8), scalar(.02), point("u1"), m.codes("i1", 6, 4, 3, 3),
                          m.positive(6) * scalar(.01), numpy.zeros(6, "i1"), scalar(.3), point("u1"),
                          m.rng.randint(-500, 500, 6).astype("i4")], 10, {"pads": [1, 1, 1, 1], "dilations": [1, 2]}
    depth, block = m.any(64, 96), m.any(16, 32)
    blocks = -(-depth // block)
    yield "com.microsoft.MatMulNBits", [m.floats(3, depth), m.codes("u1", 5, blocks, block // 2), m.positive(5 * blocks),
                                        m.any(None, m.codes("u1", 5 * ((blocks + 1) // 2)))], 17, {
        "K": depth, "N": 5, "bits": 4, "block_size": block, "accuracy_level": 1}
    yield "com.microsoft.QLinearAdd", [m.codes("u1", 3, 4), scalar(.1), point("u1"), m.codes("u1", 4), scalar(.2),
                                       point("u1"), scalar(.25), point("u1")], 13, {}


def cases(m):
    """(operator, inputs, opset, attributes)"""
    for _ in range(4):
        yield resize(m)
    yield recurrent(m, "LSTM", 4, ["HardSigmoid", "Softsign", "Tanh"])
    yield recurrent(m, "GRU", 3, ["HardSigmoid", "LeakyRelu"])
    yield recurrent(m, "RNN", 1, ["Relu"])
    yield from normalisations(m)
    yield from others(m)
    yield from quantized(m)


def write_model(path, op, inputs, opset, attrs):
    import onnx
    from onnx import helper
    elements = {kind: number for number, kind in ort.ELEMENTS.items()}
    domain, _, name = op.rpartition(".")
    outputs = {"LSTM": "f4 f4 f4", "GRU": "f4 f4", "RNN": "f4 f4", "DynamicQuantizeLinear": "u1 f4 u1", "QuantizeLinear": "u1",
               "MatMulInteger": "i4", "ConvInteger": "i4", "QLinearMatMul": "u1", "QLinearConv": "u1", "QLinearAdd": "u1", "NonMaxSuppression": "i8"}
    outputs = outputs.get(name, "f4").split()
    node = helper.make_node(name, [f"i{k}" if a is not None else "" for k, a in enumerate(inputs)],
                            [f"o{k}" for k in range(len(outputs))], domain=domain, **attrs)
    given = [helper.make_tensor_value_info(f"i{k}", elements[a.dtype.str[1:]], a.shape)
             for k, a in enumerate(inputs) if a is not None]
    made = [helper.make_tensor_value_info(f"o{k}", elements[t], None) for k, t in enumerate(outputs)]
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(helper.make_graph([node], "g", given, made), opset_imports=opsets, ir_version=8)
    onnx.save(model, path)


def ours(program, model, feeds, folder):
    arguments = []
    for name, a in feeds.items():
        path = os.path.join(folder, name)
        a.tofile(path)
        arguments.append(f"{name}={NAMES[a.dtype.str[1:]]}:{'x'.join(map(str, a.shape))}:{path}")
    out = os.path.join(folder, "out")
    done = subprocess.run([program, model, out, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return {o["name"]: numpy.fromfile(f"{out}.{i}.bin", KINDS[o["type"]]).reshape(o["shape"])
            for i, o in enumerate(json.loads(done.stdout)["outputs"])}


def difference(got, wanted):
    """Of the largest of @wanted; integers that differ at all differ by more than everything."""
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return float("inf")
    if got.dtype.kind != "f":
        return 0.0 if numpy.array_equal(got, wanted) else float("inf")
    return float(numpy.abs(got - wanted).max() / max(1e-30, numpy.abs(wanted).max())) if got.size else 0.0


def main():
    program, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8
    try:
        api = ort.Api(os.environ.get("QUANTD_PEERS", ""))
    except ort.Absent as absent:
        print(f"1..0 # SKIP operators beside ONNX Runtime are left out: {absent}")
        return 0
    try:
        import onnx.helper  # noqa: F401  (libonnx-testdata leaves a folder "onnx" of data alone, which can be imported)
    except ImportError:
        print("1..0 # SKIP operators beside ONNX Runtime are left out: no python3-onnx")
        return 0
    worst, wrong = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.onnx")
        for seed in range(rounds):
            for op, inputs, opset, attrs in cases(Maker(seed)):
                feeds = {f"i{k}": a for k, a in enumerate(inputs) if a is not None}
                write_model(model, op, inputs, opset, attrs)
                session = ort.Session(api, model)
                wanted, got = session.run(feeds), ours(program, model, feeds, folder)
                session.close()
                off = max(difference(got[name], wanted[name]) for name in wanted)
                worst[op] = max(worst.get(op, 0.0), off)
                if off > BAR:
                    wrong.setdefault(op, f"seed {seed}: {attrs}")
    for number, op in enumerate(sorted(worst), 1):
        print(f"{'not ok' if op in wrong else 'ok'} {number} - {op:32} difference {worst[op]:.2e}  {wrong.get(op, '')}")
    print(f"1..{len(worst)}")
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
