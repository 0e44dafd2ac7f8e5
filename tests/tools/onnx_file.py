"""Small ONNX models written by hand: protocol buffers without a library (onnx:onnx/onnx.proto)."""
import struct

FLOAT, UINT8, INT8, INT32, INT64, FLOAT16 = 1, 2, 3, 6, 7, 10


def varint(n):
    n &= (1 << 64) - 1
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7f | 0x80])
        n >>= 7
    return out + bytes([n])


def number(field, n):
    return varint(field << 3) + varint(n)


def data(field, content):
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def tensor(name, dims, raw, kind=FLOAT, external=None):
    """A TensorProto; @external: entries {key: value} instead of @raw."""
    body = b"".join(number(1, d) for d in dims) + number(2, kind) + data(8, name)
    if external is None:
        return body + data(9, raw)
    return body + b"".join(data(13, data(1, k) + data(2, v)) for k, v in external.items()) + number(14, 1)


def floats(values):
    return struct.pack(f"<{len(values)}f", *values)


def attribute(name, value):
    if isinstance(value, int):
        return data(1, name) + number(3, value) + number(20, 2)
    if isinstance(value, list):
        return data(1, name) + b"".join(number(8, v) for v in value) + number(20, 7)
    if isinstance(value, str):
        return data(1, name) + data(4, value) + number(20, 3)
    return data(1, name) + data(5, value) + number(20, 4) # a TensorProto


def node(op, inputs, outputs, name="", domain="", **attributes):
    body = b"".join(data(1, i) for i in inputs) + b"".join(data(2, o) for o in outputs) + data(3, name or op) + data(4, op)
    body += b"".join(data(5, attribute(k, v)) for k, v in attributes.items())
    return body + (data(7, domain) if domain else b"")


def value(name, dims, kind=FLOAT):
    """A ValueInfoProto; a text among @dims is a parameter."""
    shape = b"".join(data(1, data(2, d) if isinstance(d, str) else number(1, d)) for d in dims)
    return data(1, name) + data(2, data(1, number(1, kind) + data(2, shape)))


def graph(nodes, inputs, outputs, initializers=()):
    return (b"".join(data(1, n) for n in nodes) + data(2, "g") + b"".join(data(5, t) for t in initializers) +
            b"".join(data(11, i) for i in inputs) + b"".join(data(12, o) for o in outputs))


def function(name, inputs, outputs, nodes, domain="local", opset=17):
    """A FunctionProto as a field of the model (@more)."""
    body = data(1, name) + b"".join(data(4, i) for i in inputs) + b"".join(data(5, o) for o in outputs) + b"".join(data(7, n) for n in nodes)
    return data(25, body + data(9, data(1, "") + number(2, opset)) + data(10, domain)) + data(8, data(1, domain) + number(2, 1))


def model(content, opset=17, more=b""):
    return number(1, 8) + data(2, "tests") + data(7, content) + data(8, data(1, "") + number(2, opset)) + more


def npy(dims, raw, descr="<f4"):
    """A file of NumPy's format, version 1.0."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({', '.join(map(str, dims))}{',' if len(dims) == 1 else ''}), }}"
    text += " " * (63 - (10 + len(text)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + raw
