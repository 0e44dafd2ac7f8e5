"""A reader of GGUF that shares no line with ours: metadata, and the tensors with their bytes. For judging small files."""
import collections
import struct

Tensor = collections.namedtuple("Tensor", "name shape kind data")  # shape[0] is the contiguous row, as GGUF says it
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
F32, F16, Q4_0, Q8_0, BF16 = 0, 1, 2, 8, 30
TYPES = {  # name, elements and bytes of a block
    0: ("f32", 1, 4), 1: ("f16", 1, 2), 30: ("bf16", 1, 2), 28: ("f64", 1, 8), 24: ("i8", 1, 1), 25: ("i16", 1, 2),
    26: ("i32", 1, 4), 27: ("i64", 1, 8), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 9: ("q8_1", 32, 36), 10: ("q2_k", 256, 84), 11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144), 13: ("q5_k", 256, 176), 14: ("q6_k", 256, 210), 15: ("q8_k", 256, 292),
    16: ("iq2_xxs", 256, 66), 17: ("iq2_xs", 256, 74), 18: ("iq3_xxs", 256, 98), 19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18), 21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82), 23: ("iq4_xs", 256, 136),
    29: ("iq1_m", 256, 56), 34: ("tq1_0", 256, 54), 35: ("tq2_0", 256, 66), 39: ("mxfp4", 32, 17),
    40: ("nvfp4", 64, 36), 41: ("q1_0", 128, 18), 42: ("q2_0", 64, 18),
}


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
