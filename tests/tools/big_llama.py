"""Writes a llama of Llama 2 7B's width with as many layers as give the wanted size. Its matrices are quantized already (random
codes, one scale, every byte on disk), the embedding, which is the output too, is f16: the scheme of that type is made in a moment,
and llama.cpp loads what it makes.

usage: big_llama.py OUT q4_0|q8_0 MIB
"""
import random
import struct
import sys

import big_model

ROW, HEADS, INNER, VOCABULARY = 4096, 32, 11008, 32000
BLOCKS = {"q4_0": (2, 18), "q8_0": (8, 34)}  # id of the type, bytes of a block of 32
SCALES = {"q4_0": b"\x74\x1c", "q8_0": b"\x6e\x0c"}  # f16: weights of about 0.02
POOL_BLOCKS = 1 << 20
EMBEDDING = "token_embd.weight"
U32, F32, STRING, ARRAY, I32 = 4, 6, 8, 9, 5
FILE_TYPES = {"q4_0": 2, "q8_0": 7}


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def value(kind, v):
    if kind == STRING:
        return text(v)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f"}[kind], v)


def fact(key, kind, v):
    return text(key) + struct.pack("<I", kind) + value(kind, v)


def array(key, kind, items):
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(items)) + b"".join(value(kind, v) for v in items)


def facts(kind, layers):
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    tokens += list("\u2581abcdefghijklmnopqrstuvwxyz")
    tokens += [f"\u2581t{i}" for i in range(VOCABULARY - len(tokens))]
    types = [2, 3, 3] + 256 * [6] + (VOCABULARY - 259) * [1]
    return [fact("general.architecture", STRING, "llama"), fact("general.name", STRING, "synthetic"), fact("general.file_type", U32, FILE_TYPES[kind]),
            fact("llama.context_length", U32, 2048), fact("llama.embedding_length", U32, ROW), fact("llama.block_count", U32, layers),
            fact("llama.feed_forward_length", U32, INNER), fact("llama.attention.head_count", U32, HEADS),
            fact("llama.attention.head_count_kv", U32, HEADS), fact("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
            fact("llama.rope.dimension_count", U32, ROW // HEADS), fact("tokenizer.ggml.model", STRING, "llama"),
            array("tokenizer.ggml.tokens", STRING, tokens), array("tokenizer.ggml.scores", F32, [-float(i) for i in range(VOCABULARY)]),
            array("tokenizer.ggml.token_type", I32, types), fact("tokenizer.ggml.bos_token_id", U32, 1), fact("tokenizer.ggml.eos_token_id", U32, 2)]


def matrices(layers):
    """(name, columns, rows); rows 0: a vector of norms."""
    found = [(EMBEDDING, ROW, VOCABULARY), ("output_norm.weight", ROW, 0)]
    for i in range(layers):
        found += [(f"blk.{i}.{name}.weight", ROW, 0) for name in ("attn_norm", "ffn_norm")]
        found += [(f"blk.{i}.{name}.weight", ROW, ROW) for name in ("attn_q", "attn_k", "attn_v", "attn_output")]
        found += [(f"blk.{i}.ffn_gate.weight", ROW, INNER), (f"blk.{i}.ffn_up.weight", ROW, INNER), (f"blk.{i}.ffn_down.weight", INNER, ROW)]
    return found


def type_of(kind, name, rows):
    """Its id, the elements of a block and its bytes."""
    if not rows:
        return 0, 1, 4
    return (1, 1, 2) if name == EMBEDDING else (BLOCKS[kind][0], 32, BLOCKS[kind][1])


def n_bytes(kind, name, columns, rows):
    _, elements, n = type_of(kind, name, rows)
    return columns // elements * max(rows, 1) * n


def blocks(kind):
    """Random codes under one scale."""
    block = BLOCKS[kind][1]
    pool = bytearray(random.Random(1).randbytes(POOL_BLOCKS * block))
    for i in range(2):
        pool[i::block] = SCALES[kind][i:i + 1] * POOL_BLOCKS
    return bytes(pool)


def n_layers(kind, mib):
    """Of an artifact of that size, its embedding quantized like the rest."""
    layer = sum(n_bytes(kind, *m) for m in matrices(1)[2:])
    return max(1, round(((mib << 20) - n_bytes(kind, "", ROW, VOCABULARY)) / layer))


def content(kind, name, columns, rows, seed, pool):
    """The bytes of a tensor, piece by piece; of each matrix another stretch of the pool."""
    left = n_bytes(kind, name, columns, rows)
    if not rows:
        yield struct.pack("<f", 1) * columns
    elif name == EMBEDDING:
        yield big_model.finite_f16((left >> 20) + 1 << 20, seed)[:left]
    else:
        block = BLOCKS[kind][1]
        start = random.Random(seed).randrange(POOL_BLOCKS // 2) * block
        for at in range(0, left, len(pool) - start):
            yield pool[start:start + left - at]


def write(path, kind, mib):
    layers = n_layers(kind, mib)
    tensors, infos, at = matrices(layers), [], 0
    for name, columns, rows in tensors:
        shape = [columns, rows] if rows else [columns]
        infos.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type_of(kind, name, rows)[0], at))
        at += n_bytes(kind, name, columns, rows)  # multiples of 32
    known, pool = facts(kind, layers), blocks(kind)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(known)) + b"".join(known) + b"".join(infos)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32))
        for i, tensor in enumerate(tensors):
            for piece in content(kind, *tensor, i, pool):
                f.write(piece)
    return layers


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], int(sys.argv[3]))
