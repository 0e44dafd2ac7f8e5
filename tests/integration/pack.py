#!/usr/bin/env python3
"""Packed files: every byte where docs/formats/packed.md puts it, the same from every engine, and back to the portable file.

usage: pack.py ROOT WORKER. QUANTD_OTHER_WORKERS as in same_bytes.py: the engine for aarch64 under qemu-user is one of them.
"""
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import engines
import gguf
import tap

ROOT, WORKER = sys.argv[1:3]
LAYOUTS = {"r4k4p128": (4, 4, 128), "r4k8p128": (4, 8, 128), "r8k4p128": (8, 4, 128), "r16k4p128": (16, 4, 128)}
SCHEMES = ("q8_0", "q4_0", "q4_k_m", "q5_k_m", "q6_k", "q5_1", "f16")
CPUS = ("scalar", "avx2", "avx512")  # names that this CPU has not keep nothing: the scalar kernels again
EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_CANTCREAT = 64, 65, 66, 73

# Fields in the order that blocks.md has them in a block; their bytes and runs are read from packed.md.
BLOCKS = {"q8_0": ("d", "q"), "q4_0": ("d", "q"), "q2_k": ("scales", "q", "d", "dmin"), "q3_k": ("high", "q", "scales", "d"),
          "q4_k": ("d", "dmin", "scales", "q"), "q5_k": ("d", "dmin", "scales", "high", "q"),
          "q6_k": ("low", "high", "scales", "d")}


def read_page():
    """{type: (bytes of a block, ((offset in the block, bytes, run; None: the layout's), ...) in plane order)}"""
    types = {}
    with open(os.path.join(ROOT, "docs", "formats", "packed.md"), encoding="utf-8") as page:
        rows = re.findall(r"^\| (\w+) \| (\w+ \(\d+, \w+\).*) \|$", page.read(), re.MULTILINE)
    for kind, fields in rows:
        planes = [(name, int(n), None if run == "K" else int(run)) for name, n, run in re.findall(r"(\w+) \((\d+), (\w+)\)", fields)]
        sizes, offsets, at = {name: n for name, n, _ in planes}, {}, 0
        for name in BLOCKS[kind]:
            offsets[name], at = at, at + sizes[name]
        types[kind] = (at, tuple((offsets[name], n, run) for name, n, run in planes))
    return types


def run(form, *arguments, worker=(WORKER,), cpu=None):
    env = {**os.environ, **({"QUANTD_CPU": cpu} if cpu else {})}
    return subprocess.run([*worker, form, *arguments, "--quiet"], env=env, capture_output=True, text=True)


def made(form, *arguments, **how):
    done = run(form, *arguments, "--force", **how)
    if done.returncode:
        raise AssertionError(f"{form} {' '.join(arguments)}: status {done.returncode}: {done.stderr}")
    return done.stdout


def expect(done, status, *words):
    if done.returncode != status or not all(word in done.stderr for word in words):
        raise AssertionError(f"status {done.returncode}, not {status} with {words}: {done.stderr}")


def content(path):
    with open(path, "rb") as f:
        return f.read()


def pack_group(kind, rows, run_bytes, panel_bytes):
    """The rows of one group, each as bytes, packed by the page's formula."""
    block_bytes, fields = FIELDS[kind]
    n_blocks, n_rows, planes = len(rows[0]) // block_bytes, len(rows), []
    panel = panel_bytes // fields[0][1]
    for first in range(0, n_blocks, panel):
        for offset, n_bytes, turn in fields:
            turn = turn or run_bytes
            for block in range(first, min(first + panel, n_blocks)):
                at = block * block_bytes + offset
                planes += [row[at + i:at + i + turn] for i in range(0, n_bytes, turn) for row in rows]
    if sum(map(len, planes)) != n_rows * len(rows[0]):
        raise AssertionError("the formula loses bytes")
    return b"".join(planes)


def pack_tensor(t, layout):
    kind, (group, *sizes) = gguf.TYPES[t.kind][0], LAYOUTS[layout]
    n_rows = t.shape[1] if len(t.shape) > 1 else 1
    if kind not in FIELDS or n_rows < group:
        return t.data
    row_bytes = gguf.n_bytes(t.kind, t.shape[:1])
    rows = [t.data[at:at + row_bytes] for at in range(0, len(t.data), row_bytes)]
    whole = n_rows // group * group  # of one matrix; no model here has more of them
    return b"".join(pack_group(kind, rows[r:r + group], *sizes) for r in range(0, whole, group)) + b"".join(rows[whole:])


def check_by_the_page(portable, packed, layout):
    (facts, tensors), (said, got) = gguf.read(portable), gguf.read(packed)
    if list(got) != list(tensors) or said["quantd.layout"] != layout or said["general.architecture"] != "quantd-packed":
        raise AssertionError(said["quantd.layout"])
    if said["quantd.packed.types"] != [gguf.TYPES[t.kind][0] for t in tensors.values()]:
        raise AssertionError(said["quantd.packed.types"])
    if said["quantd.packed.shapes"] != [n for t in tensors.values() for n in (len(t.shape), *t.shape)]:
        raise AssertionError(said["quantd.packed.shapes"])
    for key, value in facts.items():
        if said["quantd.packed.architecture" if key == "general.architecture" else key] != value:
            raise AssertionError(f"{key} is {said[key]!r}, not {value!r}")
    for name, t in tensors.items():
        if got[name].kind != 24 or got[name].shape != [len(t.data)] or got[name].data != pack_tensor(t, layout):
            raise AssertionError(f"'{name}' lies otherwise than the page says")


def check_file(folder, source, scheme):
    portable, packed, back = (os.path.join(folder, name) for name in ("portable", "packed", "back"))
    engines.quantize([WORKER], source, portable, scheme, pure=False)
    want = content(portable)
    for layout in LAYOUTS:
        made("--pack", portable, packed, "--layout", layout)
        check_by_the_page(portable, packed, layout)
        made("--unpack", packed, back)
        if content(back) != want:
            raise AssertionError(f"{layout}: unpacking gives another file")


def ways():
    """[(what it is, command, options, QUANTD_CPU)]"""
    found = [(f"QUANTD_CPU={cpu}", (WORKER,), ("--threads", "1"), cpu) for cpu in CPUS]
    found += [("3 threads", (WORKER,), ("--threads", "3"), None)]
    return found + [(os.path.relpath(other.split()[-1], ROOT), shlex.split(other), (), None)
                    for other in filter(None, os.environ.get("QUANTD_OTHER_WORKERS", "").split(";"))]


def same_from(folder, source, worker, options, cpu):
    portable, first, second, back = (os.path.join(folder, name) for name in ("portable", "first", "second", "back"))
    for scheme in ("q8_0", "q4_0", "q4_k_m", "q5_k_m"):
        engines.quantize([WORKER], source, portable, scheme, pure=False)
        for layout in LAYOUTS:
            made("--pack", portable, first, "--layout", layout, "--threads", "1")
            made("--pack", portable, second, "--layout", layout, *options, worker=worker, cpu=cpu)
            made("--unpack", first, back, *options, worker=worker, cpu=cpu)
            if content(first) != content(second) or content(back) != content(portable):
                raise AssertionError(f"{scheme} {layout}: other bytes")


def foreign(folder, source):
    """A file that we did not write: other alignment, no word of ours. Ours gives it back when its writer left no slack."""
    packed, back = os.path.join(folder, "packed"), os.path.join(folder, "back")
    made("--pack", source, packed, "--layout", "r8k4p128")
    made("--unpack", packed, back)
    if content(back) != content(source):
        raise AssertionError("unpacking gives another file")


def flipped(text, old, new):
    if text.count(old) != 1:
        raise AssertionError(f"{old} stands {text.count(old)} times")
    return text.replace(old, new)


def says_what_is_wrong(folder, source):
    portable, packed, out = (os.path.join(folder, name) for name in ("portable", "packed", "out"))
    engines.quantize([WORKER], source, portable, "q8_0")
    made("--pack", portable, packed, "--layout", "r16k4p128")
    expect(run("--pack", packed, out), EX_DATAERR, "packed file (layout 'r16k4p128')", "quantctl unpack")
    expect(run("--direct", packed, out, "--scheme", "q8_0"), EX_DATAERR, "packed file (layout 'r16k4p128')", "quantctl unpack")
    expect(run("--unpack", portable, out), EX_DATAERR, "no packed file: its architecture is 'llama'")
    expect(run("--pack", portable, out, "--layout", "r16k8p128"), EX_USAGE, "unknown layout 'r16k8p128'", "did you mean", "r4k4p128, r4k8p128, r8k4p128, r16k4p128")
    expect(run("--pack", portable, out, "--layout", "portable"), EX_USAGE, "unknown layout")
    expect(run("--pack", portable, out, "--scheme", "q4_0"), EX_USAGE, "--scheme", "no option")
    expect(run("--unpack", packed, out, "--layout", "r8k4p128"), EX_USAGE, "--layout", "no option")
    expect(run("--pack", portable), EX_USAGE, "where to", "quantctl pack")
    expect(run("--pack", portable, out, cpu="scalar"), EX_DATAERR, "native", "--layout")
    expect(run("--pack", os.path.join(ROOT, "models", "tiny-kjv"), out, "--layout", "r8k4p128"), EX_DATAERR, "only GGUF files are packed")
    expect(run("--pack", portable, packed, "--layout", "r8k4p128"), EX_CANTCREAT, "is there already")
    expect(run("--pack", os.path.join(folder, "none"), out), EX_NOINPUT)
    whole = content(packed)
    for damage, words in (((b"r16k4p128", b"r32k2p128"), ("layout 'r32k2p128', which this version does not know",)),
                          ((b"quantd.packed.types", b"quantd.packed.tipes"), ("'quantd.packed.types' is missing",)),
                          ((b"quantd.packed.shapes", b"quantd.packed.shipes"), ("'quantd.packed.shapes' is missing",))):
        with open(out, "wb") as f:
            f.write(flipped(whole, *damage))
        expect(run("--unpack", out, os.path.join(folder, "x")), EX_DATAERR, *words)
    with open(out, "wb") as f:
        f.write(whole[:-4096])
    expect(run("--unpack", out, os.path.join(folder, "x")), EX_DATAERR, "the file ends at byte")
    if os.path.exists(os.path.join(folder, "x")):
        raise AssertionError("a failed run left its output")
    os.unlink(out)


def tells_what_it_does(folder, source):
    portable, packed = os.path.join(folder, "portable"), os.path.join(folder, "packed")
    engines.quantize([WORKER], source, portable, "q4_0")
    plan = json.loads(made("--pack", portable, "--layout", "r16k4p128", "--dry-run", "--json"))
    told = json.loads(made("--pack", portable, packed, "--layout", "r16k4p128", "--json"))
    n_packed = sum(t["reason"].startswith("packed by 16 rows") for t in plan["tensors"])
    if (plan["layout"], plan["file_bytes"]) != ("r16k4p128", os.path.getsize(packed)) or plan["n_tensors"] != len(plan["tensors"]):
        raise AssertionError(plan["layout"])
    if (told["layout"], told["bytes"], told["tensors"], told["packed"]) != ("r16k4p128", os.path.getsize(packed), plan["n_tensors"], n_packed) or not n_packed:
        raise AssertionError(told)
    if "packed in r8k4p128" not in made("--pack", portable, packed, "--layout", "r8k4p128") or "unpacked from r8k4p128" not in made("--unpack", packed, portable):
        raise AssertionError("no words")


FIELDS = read_page()
with tempfile.TemporaryDirectory() as FOLDER:
    for NAME, (SOURCE, _) in engines.models(ROOT).items():
        for SCHEME in SCHEMES:
            tap.case(f"{NAME} {SCHEME}: every layout by the page, and back", lambda: check_file(FOLDER, SOURCE, SCHEME))
        for WHAT, *HOW in ways():
            tap.case(f"{NAME}: the same packed and unpacked bytes by {WHAT}", lambda: same_from(FOLDER, SOURCE, *HOW))
        tap.case(f"{NAME}: the source itself, packed and back", lambda: foreign(FOLDER, SOURCE))
    TINY = engines.models(ROOT)["tiny-kjv"][0]
    tap.case("says what is wrong, and leaves nothing", lambda: says_what_is_wrong(FOLDER, TINY))
    tap.case("tells what it does, in words and as JSON", lambda: tells_what_it_does(FOLDER, TINY))
tap.end()
