#!/usr/bin/env python3
"""SHA-256 of what each type is encoded to, with and without importance: one table for all instruction sets and builds.

usage: type_digests.py ROOT WORKER [--write]
tests/golden/types.sha256 is the table; --write makes it anew. QUANTD_OTHER_WORKERS as in same_bytes.py: the engine for
aarch64 under qemu-user is one of them. The source is made here from integers alone, so it is the same everywhere.
"""
import hashlib
import os
import shlex
import struct
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import gguf
import imatrix
import tap

ROOT, WORKER = sys.argv[1:3]
TABLE = os.path.join(ROOT, "tests", "golden", "types.sha256")
CPUS = ("scalar", "avx2", "avx512")  # names that this CPU has not keep nothing: the scalar kernels again
SCHEMES = ("f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k_s", "q4_k_s", "q5_k_s", "q6_k", "iq4_nl", "iq4_xs",
           "tq1_0", "tq2_0", "mxfp4_moe")
ROW, ROWS = 1024, 12


class Numbers:
    """A generator of integers (64-bit LCG, upper bits)."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n


def bell(r):
    return (sum(r.below(1 << 20) for _ in range(6)) - 3 * (1 << 20)) / 2**22


# What a row can hold: (name, value of element i). All values are exact in f32.
KINDS = (
    ("bell", lambda r, i: bell(r)),
    ("small", lambda r, i: bell(r) / 64),
    ("heavy tails", lambda r, i: bell(r) * (256 if r.below(100) == 0 else 1)),
    ("zeros", lambda r, i: 0.0),
    ("negative zeros", lambda r, i: -0.0),
    ("one spike", lambda r, i: 100.0 if i % 256 == 77 else 0.0),
    ("constant", lambda r, i: -0.375),
    ("alternating signs", lambda r, i: 0.5 if i % 2 else -0.5),
    ("ramp", lambda r, i: (i % 256 - 100) / 128),
    ("ternary", lambda r, i: (r.below(3) - 1) * 0.25),
    ("subnormal", lambda r, i: (r.below(1 << 20) - (1 << 19)) * 2.0**-149),
    ("runs of any size", lambda r, i: bell(r) * 2.0 ** ((i // 32 * 5) % 24 - 18)),
    ("far from zero", lambda r, i: 1000 + r.below(64) / 64),
    ("some runs zero", lambda r, i: bell(r) if i // 32 % 3 else 0.0),
)


def string(s):
    return struct.pack("<Q", len(s)) + s.encode()


def write_source(path):
    names = [f"blk.{i}.ffn_up.weight" for i in range(len(KINDS))]
    facts = [("general.architecture", 8, string("llama")), ("general.file_type", 4, struct.pack("<I", 0))]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(names), len(facts))
    head += b"".join(string(key) + struct.pack("<I", kind) + value for key, kind, value in facts)
    for i, name in enumerate(names):
        head += string(name) + struct.pack("<IQQIQ", 2, ROW, ROWS, gguf.F32, i * ROW * ROWS * 4)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32))
        for seed, (_, value) in enumerate(KINDS):
            r = Numbers(seed)
            f.write(struct.pack(f"<{ROW * ROWS}f", *(value(r, i) for i in range(ROW * ROWS))))


def write_importance(path):
    r = Numbers(99)
    made = {f"blk.{i}.ffn_up.weight": ([0.0 if r.below(50) == 0 else r.below(1 << 16) / 256 for _ in range(ROW)], [1])
            for i in range(len(KINDS))}
    imatrix.write_gguf(path, made, "numbers", 1)


def digest(folder, worker, scheme, weighted, threads, cpu):
    """SHA-256 of all tensors' bytes, in order."""
    out = os.path.join(folder, "out.gguf")
    command = [*worker, "--direct", os.path.join(folder, "in.gguf"), out, "--scheme", scheme, "--pure", "--force", "--quiet", "--threads", threads]
    command += ["--imatrix", os.path.join(folder, "importance.gguf")] if weighted else []
    done = subprocess.run(command, env={**os.environ, **({"QUANTD_CPU": cpu} if cpu else {})}, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(done.stderr)
    with open(out, "rb") as f:
        r = gguf.Reader(f.read())
    r.at = 8
    n_tensors, n_facts = r.one("<Q"), r.one("<Q")
    facts = dict(r.fact() for _ in range(n_facts))
    for _ in range(n_tensors):
        r.entry()
    start = -(-r.at // facts["general.alignment"]) * facts["general.alignment"]
    return hashlib.sha256(r.data[start:]).hexdigest()


def engines():
    """[(what it is, command, threads, QUANTD_CPU)]"""
    found = [(cpu, [WORKER], "1", cpu) for cpu in CPUS] + [("2 threads", [WORKER], "2", None)]
    return found + [(os.path.relpath(other.split()[-1], ROOT), shlex.split(other), "2", None)
                    for other in filter(None, os.environ.get("QUANTD_OTHER_WORKERS", "").split(";"))]


def read_table():
    with open(TABLE, encoding="utf-8") as f:
        return {tuple(line.split()[:2]): line.split()[2] for line in f if line.strip() and not line.startswith("#")}


def check(folder, key, want):
    scheme, importance = key
    for what, worker, threads, cpu in engines():
        got = digest(folder, worker, scheme, importance == "weighted", threads, cpu)
        if got != want:
            raise AssertionError(f"{scheme} {importance} by {what}: {got}, the table has {want}")
    print(f"# {scheme:10} {importance:8} {want}")


def main(folder):
    write_source(os.path.join(folder, "in.gguf"))
    write_importance(os.path.join(folder, "importance.gguf"))
    keys = [(scheme, importance) for scheme in SCHEMES for importance in ("plain", "weighted")]
    if "--write" in sys.argv:
        with open(TABLE, "w", encoding="utf-8") as f:
            f.write("# scheme (pure), importance, SHA-256 of all tensors: tests/integration/type_digests.py\n")
            f.writelines(f"{s} {w} {digest(folder, [WORKER], s, w == 'weighted', '1', 'scalar')}\n" for s, w in keys)
    table = read_table()
    for key in keys:
        tap.case(f"{key[0]} {key[1]}: the table's SHA-256 from {', '.join(e[0] for e in engines())}",
                 lambda: check(folder, key, table[key]))


with tempfile.TemporaryDirectory() as FOLDER:
    main(FOLDER)
tap.end()
