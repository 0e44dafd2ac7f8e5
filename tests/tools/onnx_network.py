"""A small ONNX model with all that quantizing looks at, and random samples of its input."""
import random

import onnx_file as onnx

CHANNELS, SIZE, HIDDEN, CLASSES = 16, 12, 64, 20
rng = random.Random(5)


def gauss(n, width=1.0):
    return onnx.floats([rng.gauss(0, width) for _ in range(n)])


def network(opset=17, external=None):
    """Conv, Relu, Conv, GlobalAveragePool, Gemm, MatMul: a weight in an initializer, one in a Constant node."""
    first = onnx.tensor("w1", [CHANNELS, 3, 3, 3], gauss(CHANNELS * 27, 0.3), external=external)
    second = onnx.tensor("", [HIDDEN, CHANNELS, 3, 3], gauss(HIDDEN * CHANNELS * 9, 0.1))
    nodes = [
        onnx.node("Constant", [], ["w2"], value=second),
        onnx.node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        onnx.node("Relu", ["c1"], ["r1"]),
        onnx.node("Conv", ["r1", "w2"], ["c2"], name="second"),
        onnx.node("GlobalAveragePool", ["c2"], ["p"]),
        onnx.node("Flatten", ["p"], ["f"]),
        onnx.node("Gemm", ["f", "w3", "b3"], ["h"], transB=1),
        onnx.node("MatMul", ["h", "w4"], ["y"], name="last"),
    ]
    constants = [first, onnx.tensor("b1", [CHANNELS], gauss(CHANNELS)), onnx.tensor("w3", [HIDDEN, HIDDEN], gauss(HIDDEN**2, 0.2)),
                 onnx.tensor("b3", [HIDDEN], gauss(HIDDEN)), onnx.tensor("w4", [HIDDEN, CLASSES], gauss(HIDDEN * CLASSES))]
    content = onnx.graph(nodes, [onnx.value("x", ["n", 3, SIZE, SIZE])], [onnx.value("y", ["n", CLASSES])], constants)
    return onnx.model(content, opset)


def sample(seed, size=None, batch=1):
    """A .npy of the network's input "x": one image, @batch times."""
    rng.seed(seed)
    return onnx.npy([batch, 3, size or SIZE, size or SIZE], gauss(3 * (size or SIZE) ** 2) * batch)
