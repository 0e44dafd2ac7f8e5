"""Writes a llama of Llama 2 7B's width with as many layers as give the wanted size, its matrices quantized already: random codes,
one scale, every byte on disk. What llama.cpp loads and what quantd serves as it is, under the scheme of that type, pure.

usage: big_llama.py OUT q4_0|q8_0 MIB
"""
import random
import struct
import sys

ROW, HEADS, INNER, VOCABULARY = 4096, 32, 11008, 32000
BLOCKS = {"q4_0": (2, 18), "q8_0": (8, 34)}  # id of the type, bytes of a block of 32
SCALES = {"q4_0": b"\x74\x1c", "q8_0": b"\x6e\x0c"}  # f16: weights of about 0.02
POOL_BLOCKS = 1 << 20
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
    found = [("token_embd.weight", ROW, VOCABULARY), ("output_norm.weight", ROW, 0)]
    for i in range(layers):
        found += [(f"blk.{i}.{name}.weight", ROW, 0) for name in ("attn_norm", "ffn_norm")]
        found += [(f"blk.{i}.{name}.weight", ROW, ROW) for name in ("attn_q", "attn_k", "attn_v", "attn_output")]
        found += [(f"blk.{i}.ffn_gate.weight", ROW, INNER), (f"blk.{i}.ffn_up.weight", ROW, INNER), (f"blk.{i}.ffn_down.weight", INNER, ROW)]
    return found


def n_bytes(kind, columns, rows):
    return columns // 32 * rows * BLOCKS[kind][1] if rows else columns * 4


def blocks(kind):
    """Random codes under one scale."""
    block = BLOCKS[kind][1]
    pool = bytearray(random.Random(1).randbytes(POOL_BLOCKS * block))
    for i in range(2):
        pool[i::block] = SCALES[kind][i:i + 1] * POOL_BLOCKS
    return bytes(pool)


def write(path, kind, mib):
    layer = sum(n_bytes(kind, *shape) for _, *shape in matrices(1)[2:])
    layers = max(1, round(((mib << 20) - n_bytes(kind, ROW, VOCABULARY)) / layer))
    tensors, infos, at = matrices(layers), [], 0
    for name, columns, rows in tensors:
        shape = [columns, rows] if rows else [columns]
        infos.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, BLOCKS[kind][0] if rows else 0, at))
        at += n_bytes(kind, columns, rows)  # multiples of 32
    known = facts(kind, layers)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(known)) + b"".join(known) + b"".join(infos)
    pool, block = blocks(kind), BLOCKS[kind][1]
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32))
        for i, (_, columns, rows) in enumerate(tensors):
            left = n_bytes(kind, columns, rows)
            if not rows:
                f.write(struct.pack("<f", 1) * columns)
                continue
            while left:
                start = random.Random(i).randrange(POOL_BLOCKS // 2) * block  # each matrix another stretch of the pool
                f.write(pool[start:start + left])
                left -= min(left, len(pool) - start)
    return layers


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], int(sys.argv[3]))
