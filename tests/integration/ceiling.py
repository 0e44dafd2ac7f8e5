#!/usr/bin/env python3
"""quantd-worker --direct on a model far larger than memory allows, under a limit that kills whoever takes more.

usage: ceiling.py WORKER [GB MIB]: a sparse source of GB (2) with --max-memory MIB (128).
The limit is a memory cgroup of MIB where one can be made (anonymous memory and page cache together), else RLIMIT_DATA.
"""
import contextlib
import os
import resource
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import big_model
import tap

WORKER = sys.argv[1]
GB, MIB = (int(n) for n in (sys.argv[2:4] or (2, 128)))
WIDE = 1 << 20  # elements of a row


def matrix_model(path, gb):
    """Sparse: a header, and zeros without blocks on the disk."""
    n = max(1, (gb * 10**9) // (big_model.ROW * big_model.ROWS * 2))
    head = big_model.header(n)
    with open(path, "wb") as f:
        f.write(head)
        f.truncate(len(head) + n * big_model.ROW * big_model.ROWS * 2)


def wide_model(path, n_rows):
    """One embedding with rows of a million weights."""
    head = big_model.header(1, rows=(WIDE, n_rows), name="token_embd.weight")
    with open(path, "wb") as f:
        f.write(head)
        f.truncate(len(head) + WIDE * n_rows * 2)


@contextlib.contextmanager
def memory_cgroup():
    """The folder of a cgroup of MIB, or None."""
    for base, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        path = f"{base}/quantd-ceiling-{os.getpid()}"
        if not os.path.exists(f"{base}/cgroup.procs"):
            continue
        try:
            os.mkdir(path)
        except OSError:
            continue
        try:
            with open(f"{path}/{limit}", "r+") as f:
                f.write(str(MIB << 20))
            made = path
        except OSError:
            made = None  # no memory controller here
        try:
            yield made
        finally:
            os.rmdir(path)
        return
    yield None


def run(source, out, *more, form="--direct"):
    """The process's peak RSS in MiB."""
    with memory_cgroup() as group:
        def enter():
            if group:
                with open(f"{group}/cgroup.procs", "w") as f:
                    f.write("0")
            else:
                resource.setrlimit(resource.RLIMIT_DATA, (MIB << 20, MIB << 20))

        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        done = subprocess.run([WORKER, form, source, out, "--max-memory", f"{MIB}M", "--quiet", *more],
                              preexec_fn=enter, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    if done.returncode != 0:
        raise AssertionError(f"status {done.returncode}: {done.stderr}")
    print(f"# {'cgroup' if group else 'RLIMIT_DATA'} of {MIB} MiB, peak RSS {'below ' if after == before else ''}{after >> 10} MiB")
    if after > MIB << 10:
        raise AssertionError(f"peak RSS of {after >> 10} MiB")


def large(folder, scheme):
    matrix_model(f"{folder}/large.gguf", GB)
    run(f"{folder}/large.gguf", f"{folder}/out.gguf", "--scheme", scheme)
    os.unlink(f"{folder}/large.gguf")
    run(f"{folder}/out.gguf", f"{folder}/packed.gguf", "--layout", "r16k4p128", form="--pack")
    os.unlink(f"{folder}/out.gguf")
    os.unlink(f"{folder}/packed.gguf")


def wide(folder):
    wide_model(f"{folder}/wide.gguf", 300)
    run(f"{folder}/wide.gguf", f"{folder}/out.gguf", "--scheme", "q8_0")
    run(f"{folder}/out.gguf", f"{folder}/packed.gguf", "--layout", "r8k4p128", form="--pack")
    run(f"{folder}/packed.gguf", f"{folder}/back.gguf", form="--unpack")
    for name in ("out", "packed", "back"):
        os.unlink(f"{folder}/{name}.gguf")


with tempfile.TemporaryDirectory(prefix="quantd-ceiling-", dir=os.environ.get("TMPDIR", "/var/tmp")) as FOLDER:
    for SCHEME in ("q8_0", "q4_k_m") if GB > 2 else ("q8_0",):
        tap.case(f"{GB} GB to {SCHEME}, and packed, in {MIB} MiB", lambda: large(FOLDER, SCHEME))
    tap.case(f"rows of a million weights, packed and unpacked, in {MIB} MiB", lambda: wide(FOLDER))
tap.end()
