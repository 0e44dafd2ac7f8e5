"""A reader of GGUF that shares no line with ours: metadata, and the tensors with their bytes. For judging small files."""
import collections
import struct

Tensor = collections.namedtuple("Tensor", "name shape kind data")  # shape[0] is the contiguous row, as GGUF says it
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
F32, F16, Q4_0, Q8_0, BF16 = 0, 1, 2, 8, 30
TYPES = {F32: ("f32", 1, 4), F16: ("f16", 1, 2), Q4_0: ("q4_0", 32, 18), Q8_0: ("q8_0", 32, 34), BF16: ("bf16", 1, 2)}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def one(self, code):
        value, = struct.unpack_from(code, self.data, self.at)
        self.at += struct.calcsize(code)
        return value

    def string(self):
        n = self.one("<Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            item, n = self.one("<I"), self.one("<Q")
            return [self.value(item) for _ in range(n)]
        return self.one(SCALARS[kind])

    def fact(self):
        key, kind = self.string(), self.one("<I")
        return key, self.value(kind)

    def entry(self):
        name = self.string()
        shape = [self.one("<Q") for _ in range(self.one("<I"))]
        return name, shape, self.one("<I"), self.one("<Q")


def n_bytes(kind, shape):
    _, block, block_bytes = TYPES[kind]
    n = 1
    for dim in shape:
        n *= dim
    return n // block * block_bytes


def read(path):
    """({key: value}, {name: Tensor}) of the GGUF at @path."""
    with open(path, "rb") as f:
        r = Reader(f.read())
    if r.data[:4] != b"GGUF" or struct.unpack_from("<I", r.data, 4)[0] not in (2, 3):
        raise ValueError(f"{path}: no GGUF of version 2 or 3")
    r.at = 8
    n_tensors, n_facts = r.one("<Q"), r.one("<Q")
    facts = dict(r.fact() for _ in range(n_facts))
    entries = [r.entry() for _ in range(n_tensors)]
    alignment = facts.get("general.alignment", 32)
    start, tensors = -(-r.at // alignment) * alignment, {}
    for name, shape, kind, offset in entries:
        n = n_bytes(kind, shape)
        data = r.data[start + offset:start + offset + n]
        if len(data) != n or offset % alignment:
            raise ValueError(f"{path}: '{name}' lies outside the file or off its alignment")
        tensors[name] = Tensor(name, shape, kind, data)
    return facts, tensors
