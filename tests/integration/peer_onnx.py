#!/usr/bin/env python3
"""Our executor beside ONNX Runtime on real models: outputs, and one-thread time.

usage: peer_onnx.py RUN_MODEL [--bench] [--stories MODEL]
Needs QUANTD_PEERS with onnxruntime-node and the models' packages (./dev peers); what is absent is left out by name.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "peers"), os.path.join(HERE, "..", "tasks")]
import ocr      # noqa: E402
import ort      # noqa: E402
import speech   # noqa: E402

NAMES = {numpy.dtype("f4"): "float32", numpy.dtype("i8"): "int64"}
BAR = 1e-4


def cases(peers, stories):
    """(name, path, feeds)"""
    rng = numpy.random.RandomState(7)
    line, page = ocr.line_input(ocr.render_line(1000)[0]), ocr.page_input(ocr.render_page(2000))
    yield "ocr-rec", f"{peers}/{ocr.Recognition.model}", {"x": line}
    yield "ocr-det", f"{peers}/{ocr.Detection.model}", {"x": page}
    yield "ocr-cls", f"{peers}/{ocr.Angle.model}", {"x": ocr.Angle.input(ocr.render_line(1000)[0], 0)}
    models = f"{peers}/{speech.WAKE_MODELS}"
    yield "melspectrogram", f"{models}/melspectrogram.onnx", {"input": rng.normal(0, 3000, (1, 32000)).astype("f4")}
    yield "embedding", f"{models}/embedding_model.onnx", {"input_1": rng.normal(10, 2, (4, 76, 32, 1)).astype("f4")}
    for head in speech.HEADS:
        frames = 22 if "weather" in head else 16
        name = "x.1" if "jarvis" in head else "onnx::Flatten_0"
        yield head, f"{models}/{head}.onnx", {name: rng.normal(0, 8, (1, frames, 96)).astype("f4")}
    yield "silero-vad", f"{peers}/{speech.VAD_MODEL}", {
        "input": rng.normal(0, 0.1, (1, 576)).astype("f4"), "state": rng.normal(0, 0.3, (2, 1, 128)).astype("f4"),
        "sr": numpy.array(16000, "i8")}
    if stories:
        yield "stories260K", stories, {"input_ids": rng.randint(0, 512, (1, 128)).astype("i8")}


def ours(program, model, feeds, folder, repeats):
    arguments = []
    for i, (name, a) in enumerate(feeds.items()):
        path = os.path.join(folder, f"in{i}")
        numpy.ascontiguousarray(a).tofile(path)
        arguments.append(f"{name}={NAMES[a.dtype]}:{'x'.join(map(str, a.shape))}:{path}")
    out = os.path.join(folder, "out")
    done = subprocess.run([program, model, out, f"--repeat={repeats}", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    said = json.loads(done.stdout)
    arrays = {}
    for i, o in enumerate(said["outputs"]):
        kind = {"float32": "f4", "int64": "i8"}[o["type"]]
        arrays[o["name"]] = numpy.fromfile(f"{out}.{i}.bin", kind).reshape(o["shape"])
    return arrays, said


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run_model")
    parser.add_argument("--bench", action="store_true")
    parser.add_argument("--stories")
    arguments = parser.parse_args()
    peers = os.environ.get("QUANTD_PEERS", "")
    try:
        api = ort.Api(peers)
    except ort.Absent as absent:
        print(f"1..0 # SKIP every comparison with ONNX Runtime is left out: {absent}")
        return 0
    failed, number = 0, 0
    print(f"# ONNX Runtime {api.version}; one thread; difference is max |ours - theirs| / max |theirs|")
    for name, model, feeds in cases(peers, arguments.stories):
        if not os.path.exists(model):
            print(f"# {name} is left out: no {model}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            got, said = ours(arguments.run_model, model, feeds, folder, 9 if arguments.bench else 1)
            session = ort.Session(api, model, level="all" if arguments.bench else "basic")
            wanted = session.run(feeds)
            worst = max(float(numpy.abs(got[k].astype("f8") - w).max() / max(1e-30, numpy.abs(w).max())) for k, w in wanted.items())
            same = all(got[k].shape == w.shape for k, w in wanted.items())
            speed = ""
            if arguments.bench:
                theirs = session.milliseconds(feeds)
                speed = f"  {said['ms']:9.3f} ms, theirs {theirs:9.3f}  {said['ms'] / theirs:5.2f}x  peak {said['peak_bytes'] >> 20} MiB"
            session.close()
        ok = same and worst <= BAR
        failed += not ok
        number += 1
        print(f"{'ok' if ok else 'not ok'} {number} - {name:18} difference {worst:.2e}{speed}", flush=True)
    print(f"1..{number}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
