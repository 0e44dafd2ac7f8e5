"""Writes a synthetic f16 GGUF of about the wanted size: llama's tensor names, finite random weights, every byte on disk.

usage: big_model.py OUT MIB
"""
import random
import struct
import sys

ROW, ROWS = 4096, 4096  # one matrix: 32 MiB of f16
POOL_BYTES = 64 << 20


def finite_f16(n_bytes, seed):
    """Random f16: exponents of 8 to 15, so |x| < 2; no NaN, no Inf."""
    mask = int.from_bytes(b"\xff\xbf" * (1 << 19), "little")
    raised = int.from_bytes(b"\x00\x20" * (1 << 19), "little")
    rng = random.Random(seed)
    return b"".join(((int.from_bytes(rng.randbytes(1 << 20), "little") & mask) | raised).to_bytes(1 << 20, "little")
                    for _ in range(n_bytes >> 20))


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def fact(key, value):
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    return text(key) + struct.pack("<II", 4, value)


def header(n_matrices, alignment=32, rows=(ROW, ROWS), name="blk.{}.ffn_up.weight"):
    facts = [fact("general.architecture", "llama"), fact("general.name", "synthetic"), fact("general.file_type", 1),
             fact("llama.block_count", n_matrices), fact("general.alignment", alignment)]
    infos, offset = [], 0
    for i in range(n_matrices):
        infos.append(text(name.format(i)) + struct.pack("<IQQIQ", 2, *rows, 1, offset))
        offset += rows[0] * rows[1] * 2
    head = b"GGUF" + struct.pack("<IQQ", 3, n_matrices, len(facts)) + b"".join(facts) + b"".join(infos)
    return head + bytes(-len(head) % alignment)


def write(path, mib):
    n_matrices = max(1, (mib << 20) // (ROW * ROWS * 2))
    pool = finite_f16(POOL_BYTES, seed=1)
    with open(path, "wb") as f:
        f.write(header(n_matrices))
        for i in range(n_matrices):
            start = (i * 7 << 20) % (POOL_BYTES // 2)  # each matrix another stretch of the pool
            f.write(pool[start:start + ROW * ROWS * 2])


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]))
