#!/usr/bin/env python3
"""ONNX artifacts in packed layouts: made from the portable one, computed with by an app, unpacked to the same bytes.

usage: onnx_packed.py DAEMON WORKER QUANTCTL MATRICES
"""
import os
import random
import struct
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import onnx_network
import tap
from house import Failed, House

DAEMON, WORKER, QUANTCTL, MATRICES = (os.path.abspath(p) for p in sys.argv[1:5])
FORMS = (("int8-weight",), ("int8-dynamic",), ("int4",), ("int4", "--block", "64", "--asymmetric"), ("int4", "--block", "128"))
EX_DATAERR = 65


def read(path):
    with open(path, "rb") as f:
        return f.read()


def put(path, content):
    with open(f"{path}.part", "wb") as f:
        f.write(content)
    os.rename(f"{path}.part", path)


def house(check):
    def run():
        with House(DAEMON, WORKER, QUANTCTL) as h:
            for opset in (17, 21):
                onnx_network.rng.seed(5)
                put(h.path("models", f"o{opset}.onnx"), onnx_network.network(opset=opset))
            h.start()
            h.until_ready("o17")
            h.until_ready("o21")
            check(h)
            assert h.stop() == 0
    return run


def layouts(h):
    """What this CPU can use: a narrower one, too, where it has two."""
    native = h.ctl("open", "o17", "--scheme", "int8-weight", "--layout", "native")["layout"]
    return (native, "r8k4p128") if native == "r16k4p128" else (native,)


def open_both(h, model, form, layout):
    """The folder of the portable artifact, the packed file."""
    folder = h.path("-".join((model, layout, *form)))
    os.makedirs(folder)
    h.ctl("open", model, "--scheme", *form, "--output", f"{folder}/portable/")
    opened = h.ctl("open", model, "--scheme", *form, "--layout", layout, "--output", f"{folder}/packed.gguf")
    assert opened["layout"] == layout and f"layout {layout}" in opened["why"], opened
    return f"{folder}/portable", f"{folder}/packed.gguf"


def unpacks(h):
    for layout in layouts(h):
        for model in ("o17", "o21"):
            for form in FORMS:
                portable, packed = open_both(h, model, form, layout)
                os.makedirs(f"{portable}/../back")
                done = h.ctl("unpack", packed, "-o", f"{portable}/../back/model.onnx")
                assert done["layout"] == layout and done["packed"] == 2, done
                changed = sum(len(read(f"{portable}/{name}")) for name in ("model.onnx", "model.onnx.data"))
                assert done["bytes"] == changed, (done, changed)
                for name in ("model.onnx", "model.onnx.data"):
                    assert read(f"{portable}/{name}") == read(f"{portable}/../back/{name}"), f"{model} {form} {layout}: {name} is another"
                assert read(f"{portable}/model.onnx.data") not in read(packed), "nothing changed its place"


def weights():
    """w3 as rows of what it makes, and w4, as the network has them."""
    onnx_network.rng.seed(5)
    n = onnx_network
    for count, width in ((n.CHANNELS * 27, 0.3), (n.HIDDEN * n.CHANNELS * 9, 0.1), (n.CHANNELS, 1.0)):
        n.gauss(count, width)
    third = struct.unpack(f"<{n.HIDDEN**2}f", n.gauss(n.HIDDEN**2, 0.2))
    n.gauss(n.HIDDEN)
    fourth = struct.unpack(f"<{n.HIDDEN * n.CLASSES}f", n.gauss(n.HIDDEN * n.CLASSES))
    return {"w3": third, "w4": [fourth[k * n.CLASSES + r] for r in range(n.CLASSES) for k in range(n.HIDDEN)]}


def matrices(h, model, scheme, layout, folder):
    socket = h.path("run", "quantd", "quantd.sock")
    done = subprocess.run([MATRICES, socket, model, scheme, layout, folder], env=h.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}


def computes(h):
    exact = weights()
    for layout in layouts(h):
        for model in ("o17", "o21"):
            for scheme, step in (("int8-weight", 0.02), ("int8-dynamic", 0.02), ("int4", 0.25)):
                found = matrices(h, model, scheme, layout, h.path())
                assert len(found) == 4, found
                for name, (rows, cols, block, *differences, used, scales) in found.items():
                    assert differences == ["0", "0", "0"], f"{model} {scheme} {layout} {name}: {differences}"
                    packed = int(cols) % 32 == 0 and int(rows) >= int(layout[1:].split("k")[0]) # as docs/formats/packed.md says
                    assert used == (layout if packed else "portable"), (name, rows, cols, used)
                    moves = packed and model == "o17" and block != "0"  # MatMulNBits' scales stand row by row
                    assert scales == (layout if moves else "portable"), (name, scales)
                    for weight in exact:
                        if name.startswith(weight):
                            got = struct.unpack(f"<{int(rows) * int(cols)}f", read(h.path(name)))
                            assert len(got) == len(exact[weight])
                            most = max(abs(w) for w in exact[weight])
                            worst = max(abs(w - g) for w, g in zip(exact[weight], got))
                            assert worst < step * most, f"{model} {scheme} {layout} {name}: {worst} of {most}"


def is_shown(h):
    _, packed = open_both(h, "o17", ("int8-weight",), layouts(h)[0])
    shown = {t["name"]: t for t in h.ctl("show", "o17:int8-weight")["tensors"]}
    codes = next(t for name, t in shown.items() if name.startswith("w3_quantized"))
    assert codes["to"] == "i8" and codes["sqnr_db"] > 30, codes
    plan = h.ctl("plan", "o17", "--scheme", "int4")
    assert plan["layout"] == layouts(h)[0], plan
    try:
        h.ctl("quantize", packed, "-o", h.path("again.gguf"), "--scheme", "q8_0")
    except Failed as said:
        assert "packed file" in said.text and "unpack" in said.text, said.text
    else:
        raise AssertionError("a packed file was quantized")


def hardware_changes(h):
    """Another CPU is another layout of the same portable artifact; with auto no request ever fails."""
    before = h.path("config", "quantd", "quantd.conf")
    conf = read(before).decode()
    native = layouts(h)[0]
    h.ctl("open", "o21", "--scheme", "int4", "--layout", "native")
    key = h.ctl("open", "o21", "--scheme", "int4")["key"]
    for features, layout in (("-avx512", "r8k4p128"), ("", native)) if native == "r16k4p128" else (("", native),):
        assert h.stop() == 0
        put(before, conf.replace("[daemon]\n", f"[daemon]\ncpu = {features}\n" if features else "[daemon]\n").encode())
        h.start()
        opened = h.ctl("open", "o21", "--scheme", "int4", "--layout", "auto")
        assert opened["layout"] in ("portable", layout), opened
        h.until(f"{layout} is there", lambda: h.ctl("open", "o21", "--scheme", "int4", "--layout", "auto")["layout"] == layout)
        assert h.ctl("open", "o21", "--scheme", "int4", "--no-build")["key"] == key, "another portable artifact"
        for name, (*_, a, b, c, used, _) in matrices(h, "o21", "int4", layout, h.path()).items():
            assert [a, b, c] == ["0", "0", "0"], (layout, name, used)


def bad_files(h):
    """Every header that was changed is refused in words or gives files of the same size; nothing dies."""
    _, packed = open_both(h, "o17", ("int4", "--block", "64", "--asymmetric"), layouts(h)[0])
    content, rng, refused = read(packed), random.Random(7), 0
    at = content.index(b"quantd.onnx.matrices")
    for i in range(120):
        bad = bytearray(content)
        if i % 3 == 2:
            bad = bad[: rng.randrange(len(bad))]
        else:
            for _ in range(1 + i % 2):
                bad[at + rng.randrange(0, 180)] = rng.choice((0, 1, 2, 8, 127, 128, 255))
        put(h.path("bad.gguf"), bytes(bad))
        done = subprocess.run([QUANTCTL, "unpack", h.path("bad.gguf"), "-o", h.path("bad.onnx"), "--force"], capture_output=True, text=True)
        refused += done.returncode != 0
        assert done.returncode in (0, EX_DATAERR, 64, 66, 69, 74, 75, 77), (i, done.returncode, done.stderr)
        assert done.returncode == 0 or "bad.gguf" in done.stderr, done.stderr
        assert done.returncode != 0 or os.path.getsize(h.path("bad.onnx")) > 0
    assert refused > 80, refused


CASES = (("any form, any layout: the portable files again, byte for byte", unpacks),
         ("an app computes with packed weights as with portable ones, and they are the model's", computes),
         ("what is packed is the portable artifact's, and is no model to quantize", is_shown),
         ("another CPU: the layout that it reads, from the same portable artifact, and back", hardware_changes),
         ("packed files that are damaged: refused in words", bad_files))
for name, check in CASES:
    tap.case(name, house(check))
tap.end()
