#!/usr/bin/env python3
"""Importance matrices for tests: made by seed or from a model's own activations, written and read in both forms.

usage: imatrix.py MODEL OUT [--dat] [--seed N] [--text FILE] [--tokens N] [--leave-out PART]
Without --seed the model reads the text (this file by default) in pure Python, and the squares of what comes into each
matrix are summed, as llama-imatrix does. Shares no line with the engine.
"""
import argparse
import math
import operator
import os
import random
import struct

import gguf

CHUNK_TOKENS = 512


# ---- what a matrix is: {tensor: (sums, counts)} -----------------------------------------------------

def matrices(tensors):
    """Those that llama-imatrix looks at: matrices in blocks, and the output."""
    return {name: t for name, t in tensors.items()
            if len(t.shape) > 1 and name.endswith(".weight") and (name.startswith("blk.") or name == "output.weight")}


def by_seed(tensors, seed):
    """Values over six decades with some zeros; an expert in four saw nothing."""
    rng = random.Random(seed)
    made = {}
    for name, t in matrices(tensors).items():
        experts = t.shape[2] if len(t.shape) > 2 else 1
        counts = [0 if experts > 1 and rng.random() < 0.25 else rng.randrange(1, 5000) for _ in range(experts)]
        sums = [0.0 if rng.random() < 0.01 else 10 ** rng.uniform(-3, 3) * max(counts[i // t.shape[0]], 1)
                for i in range(t.shape[0] * experts)]
        made[name] = ([f32(v) for v in sums], counts)
    return made


def f32(v):
    return struct.unpack("<f", struct.pack("<f", v))[0]


# ---- a llama that reads text ---------------------------------------------------------------------------

def numbers(t):
    """A tensor's rows as lists of floats."""
    n = len(t.data)
    if t.kind == gguf.F32:
        flat = struct.unpack(f"<{n // 4}f", t.data)
    elif t.kind == gguf.F16:
        flat = struct.unpack(f"<{n // 2}e", t.data)
    elif t.kind == gguf.BF16:
        wide = bytearray(2 * n)
        wide[2::4], wide[3::4] = t.data[0::2], t.data[1::2]
        flat = struct.unpack(f"<{n // 2}f", wide)
    else:
        raise ValueError(f"'{t.name}': {gguf.TYPES[t.kind][0]} is not for reading text")
    return [flat[i:i + t.shape[0]] for i in range(0, len(flat), t.shape[0])]


def dot(a, b):
    return sum(map(operator.mul, a, b))


class Llama:
    def __init__(self, facts, tensors):
        def fact(key, default=None):
            return facts.get(f"llama.{key}", default)
        self.layers, self.heads = fact("block_count"), fact("attention.head_count")
        self.kv_heads, self.epsilon = fact("attention.head_count_kv", self.heads), fact("attention.layer_norm_rms_epsilon")
        self.base, self.width = fact("rope.freq_base", 10000.0), fact("embedding_length")
        self.head = self.width // self.heads
        self.rows = {name: numbers(t) for name, t in tensors.items()}
        self.seen = {name: [0.0] * t.shape[0] for name, t in matrices(tensors).items()}
        self.cache = [([], []) for _ in range(self.layers)]
        self.n_tokens = 0

    def apply(self, name, x):
        seen = self.seen.get(name)
        if seen:
            self.seen[name] = list(map(lambda s, v: s + v * v, seen, x))
        return [dot(row, x) for row in self.rows[name]]

    def norm(self, name, x):
        scale = 1 / math.sqrt(dot(x, x) / len(x) + self.epsilon)
        return [v * scale * w for v, w in zip(x, self.rows[name][0])]

    def turn(self, x, at):
        """Rotary position of neighbours, head by head."""
        out = list(x)
        for i in range(0, len(x), 2):
            angle = at / self.base ** (i % self.head / self.head)
            c, s = math.cos(angle), math.sin(angle)
            out[i], out[i + 1] = x[i] * c - x[i + 1] * s, x[i] * s + x[i + 1] * c
        return out

    def attend(self, layer, q):
        keys, values = self.cache[layer]
        out = []
        for h in range(self.heads):
            kv = h // (self.heads // self.kv_heads) * self.head
            mine = q[h * self.head:(h + 1) * self.head]
            scores = [dot(mine, k[kv:kv + self.head]) / math.sqrt(self.head) for k in keys]
            top = max(scores)
            weights = [math.exp(s - top) for s in scores]
            total = sum(weights)
            out += [sum(w * v[kv + i] for w, v in zip(weights, values)) / total for i in range(self.head)]
        return out

    def block(self, layer, x):
        def name(part):
            return f"blk.{layer}.{part}.weight"
        h = self.norm(name("attn_norm"), x)
        q, k, v = (self.apply(name(f"attn_{part}"), h) for part in "qkv")
        self.cache[layer][0].append(self.turn(k, self.n_tokens))
        self.cache[layer][1].append(v)
        mixed = self.apply(name("attn_output"), self.attend(layer, self.turn(q, self.n_tokens)))
        x = [a + b for a, b in zip(x, mixed)]
        h = self.norm(name("ffn_norm"), x)
        gate, up = self.apply(name("ffn_gate"), h), self.apply(name("ffn_up"), h)
        down = self.apply(name("ffn_down"), [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)])
        return [a + b for a, b in zip(x, down)]

    def read(self, tokens):
        for token in tokens:
            x = self.rows["token_embd.weight"][token]
            for layer in range(self.layers):
                x = self.block(layer, x)
            if "output.weight" in self.seen:
                self.apply("output.weight", self.norm("output_norm.weight", x))
            self.n_tokens += 1


def pieces(text, vocabulary, most):
    """The longest piece that fits, again and again: near enough to the tokenizer for this purpose."""
    ids = {piece: i for i, piece in reversed(list(enumerate(vocabulary)))}
    text, tokens = "\u2581" + text.replace(" ", "\u2581"), []
    longest = max(map(len, ids))
    while text and len(tokens) < most:
        n = next((n for n in range(min(longest, len(text)), 0, -1) if text[:n] in ids), 0)
        if n:
            tokens.append(ids[text[:n]])
        text = text[max(n, 1):]
    return tokens


def by_reading(facts, tensors, text, n_tokens):
    model = Llama(facts, tensors)
    model.read(pieces(text, facts["tokenizer.ggml.tokens"], n_tokens))
    return {name: ([f32(v) for v in sums], [model.n_tokens]) for name, sums in model.seen.items()}


# ---- writing --------------------------------------------------------------------------------------------

def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def write_gguf(path, made, dataset, chunks):
    facts = [string("general.type") + struct.pack("<I", 8) + string("imatrix"),
             string("imatrix.datasets") + struct.pack("<IIQ", 9, 8, 1) + string(dataset),
             string("imatrix.chunk_count") + struct.pack("<II", 4, chunks),
             string("imatrix.chunk_size") + struct.pack("<II", 4, CHUNK_TOKENS)]
    infos, data = [], b""
    for name, (sums, counts) in sorted(made.items()):
        for suffix, values, row in ((".in_sum2", sums, len(sums) // len(counts)), (".counts", counts, 1)):
            infos.append(string(name + suffix) + struct.pack("<IQQIQ", 2, row, len(values) // row, 0, len(data)))
            data += struct.pack(f"<{len(values)}f", *values)
            data += bytes(-len(data) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(facts)) + b"".join(facts + infos)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32) + data)


def write_dat(path, made, dataset, chunks):
    """As llama-imatrix writes it: means times calls, so that one number of calls does for all experts."""
    out = struct.pack("<i", len(made))
    for name, (sums, counts) in sorted(made.items()):
        calls, row = (max(counts) + CHUNK_TOKENS - 1) // CHUNK_TOKENS, len(sums) // len(counts)
        values = [f32(f32(v / counts[i // row]) * calls) if counts[i // row] else float(calls) for i, v in enumerate(sums)]
        raw = name.encode()
        out += struct.pack("<i", len(raw)) + raw + struct.pack(f"<ii{len(values)}f", calls, len(values), *values)
    raw = dataset.encode()
    with open(path, "wb") as f:
        f.write(out + struct.pack("<ii", chunks, len(raw)) + raw)


# ---- reading, as llama-quantize does ---------------------------------------------------------------------------

def read_gguf(path):
    _, tensors = gguf.read(path)
    values = {}
    for name in (n[:-len(".in_sum2")] for n in tensors if n.endswith(".in_sum2")):
        sums, counts = (struct.unpack(f"<{len(t.data) // 4}f", t.data) for t in (tensors[name + ".in_sum2"], tensors[name + ".counts"]))
        row = len(sums) // len(counts)
        counts = [math.floor(c + 0.5) for c in counts]
        values[name] = [f32(v / f32(counts[i // row])) if counts[i // row] else 1.0 for i, v in enumerate(sums)]
    return values


def read_dat(path):
    with open(path, "rb") as f:
        r = gguf.Reader(f.read())
    values = {}
    for _ in range(r.one("<i")):
        n = r.one("<i")
        name = r.data[r.at:r.at + n].decode()
        r.at += n
        calls, n = r.one("<i"), r.one("<i")
        values[name] = [f32(v / f32(calls)) if calls > 0 else v for v in struct.unpack_from(f"<{n}f", r.data, r.at)]
        r.at += 4 * n
    return values


def read(path):
    with open(path, "rb") as f:
        return (read_gguf if f.read(4) == b"GGUF" else read_dat)(path)


def write_raw(path, values):
    """For tests/peers/peer_quantize: u32 length and name, u32 number, floats; again and again."""
    with open(path, "wb") as f:
        for name, numbers_of in sorted(values.items()):
            raw = name.encode()
            f.write(struct.pack("<I", len(raw)) + raw + struct.pack(f"<I{len(numbers_of)}f", len(numbers_of), *numbers_of))


def make(model, out, dat=False, seed=None, text=None, n_tokens=48, leave_out=None):
    facts, tensors = gguf.read(model)
    if seed is not None:
        made = by_seed(tensors, seed)
    else:
        with open(text or os.path.abspath(__file__)) as f:
            made = by_reading(facts, tensors, f.read(), n_tokens)
    made = {name: m for name, m in made.items() if not leave_out or leave_out not in name}
    (write_dat if dat else write_gguf)(out, made, os.path.basename(text or "seeded"), 3)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("model")
    args.add_argument("out")
    args.add_argument("--dat", action="store_true", help="llama.cpp's older form")
    args.add_argument("--seed", type=int)
    args.add_argument("--text")
    args.add_argument("--tokens", type=int, default=48)
    args.add_argument("--leave-out", help="tensors with this in their name")
    a = args.parse_args()
    make(a.model, a.out, a.dat, a.seed, a.text, a.tokens, a.leave_out)


if __name__ == "__main__":
    main()
