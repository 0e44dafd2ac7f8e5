#!/usr/bin/env python3
"""Quantizes the real models with quantctl and scores them on their tasks, judged by ONNX Runtime.

usage: tasks.py QUANTCTL [--schemes S,S] [--only TASK,TASK] [--method M] [--stories FOLDER] [--table]
Needs QUANTD_PEERS (./dev peers) and Debian's fonts, words, espeak-ng, sox, sounds; what is absent is left out by name.
Exit status 1 where a score is below its bar. --table: also milliseconds of ONNX Runtime, one thread.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "peers"), HERE]
import ocr      # noqa: E402
import ort      # noqa: E402
import speech   # noqa: E402
import stories  # noqa: E402

WITH_DATA = ("int8", "int8-static")
BARS = { # task and scheme: the least score
    ("ocr-rec", "int8-weight"): 58, ("ocr-rec", "int8-static"): 56, ("ocr-det", "int8-weight"): 0.97, ("wake", "int8-weight"): 24,
    ("vad", "int8-weight"): 0.99, ("ocr-rec", "int8"): 58, ("stories260K", "int8"): -3.83, ("vad", "int8"): 0.99,
    ("wake", "int8"): 24, ("ocr-det", "int8"): 0.97, ("stories260K", "int8-weight"): -3.81, ("stories260K", "int4"): -4.21,
}


def quantize(quantctl, model, out, scheme, data, method):
    """Bytes of the quantized model and its data and the form that was made, or None and why there is none."""
    more = ["--calibration", data, "--method", method] if scheme in WITH_DATA else []
    done = subprocess.run([quantctl, "quantize", model, "-o", out, "-f", "-q", "--json", "--scheme", scheme, *more],
                          capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr.strip().split("\n")[0]
    return sum(os.path.getsize(p) for p in (out, out + ".data") if os.path.exists(p)), json.loads(done.stdout)["scheme"]


class One:
    """A task of a single model."""

    def __init__(self, task, peers):
        self.task, self.models = task, {"": task.model if os.path.isabs(task.model) else os.path.join(peers, task.model)}
        self.name, self.unit = task.name, task.unit

    def score(self, sessions):
        return self.task.score(sessions[""])

    def feeds(self, model, sessions):
        return self.task.feeds()

    def calibration(self, folders, api):
        session = ort.Session(api, self.models[""])
        self.task.calibration(folders[""], session)
        session.close()


class Chain:
    """A task of several models, all of them quantized."""

    def __init__(self, task, peers):
        self.task, self.models = task, {k: os.path.join(peers, v) for k, v in task.models.items()}
        self.name, self.unit = task.name, task.unit
        self.score, self.feeds = task.score, task.feeds

    def calibration(self, folders, api):
        self.task.calibration(folders, {k: ort.Session(api, p) for k, p in self.models.items()})


def tasks(peers, folder, stories_folder, only):
    made = [(ocr.Recognition, One), (ocr.Detection, One), (ocr.Angle, One), (speech.WakeWords, Chain), (speech.VoiceActivity, One)]
    for kind, wrap in made:
        if not only or kind.name in only:
            yield wrap(kind(peers, folder), peers)
    if stories_folder and (not only or stories.Perplexity.name in only):
        yield One(stories.Perplexity(stories_folder), peers)


def data_of(api, task, folder):
    """Folders with calibration data for the task's models, made once."""
    folders = {key: os.path.join(folder, f"{task.name}-{key}.calib") for key in task.models}
    if not os.path.isdir(folders[next(iter(folders))]):
        for path in folders.values():
            os.mkdir(path)
        task.calibration(folders, api)
    return folders


def paths_of(api, task, scheme, quantctl, folder, method):
    """The models' files under @scheme, their bytes, and the forms that were made or why there are none."""
    data = data_of(api, task, folder) if scheme in WITH_DATA else {}
    paths, total, forms = {}, 0, []
    for key, model in task.models.items():
        if scheme == "f32":
            paths[key], n = model, os.path.getsize(model)
        else:
            paths[key] = os.path.join(folder, f"{task.name}-{key}-{scheme}.onnx")
            n, form = quantize(quantctl, model, paths[key], scheme, data.get(key), method)
            if n is None and "can be quantized" in form: # nothing but small tensors: the model stays
                paths[key], n, form = model, os.path.getsize(model), "f32"
            elif n is None:
                return None, 0, form
            forms.append(form)
        total += n
    return paths, total, " ".join(f"{forms.count(f)} x {f}" for f in sorted(set(forms))) if scheme == "int8" else ""


def run(api, task, scheme, quantctl, folder, table, method):
    """True where the score reaches its bar."""
    paths, n_bytes, forms = paths_of(api, task, scheme, quantctl, folder, method)
    if not paths:
        print(f"       {task.name:12} {scheme:12} not made: {forms}", flush=True)
        return (task.name, scheme) not in BARS
    try:
        sessions = {k: ort.Session(api, p) for k, p in paths.items()}
        score, text = task.score(sessions)
        ms = sum(s.milliseconds(task.feeds(k, sessions)) for k, s in sessions.items()) if table else None
    except ort.Refused as refused:
        print(f"not ok {task.name:12} {scheme:12} ONNX Runtime: {str(refused)[:300]}", flush=True)
        return False
    for session in sessions.values():
        session.close()
    bar = BARS.get((task.name, scheme))
    ok = bar is None or score >= bar
    time = "" if ms is None else f"  {ms:8.2f} ms"
    print(f"{'ok    ' if ok else 'not ok'} {task.name:12} {scheme:12} {n_bytes:9} bytes{time}  {text}  {forms}".rstrip(), flush=True)
    return ok


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("quantctl")
    parser.add_argument("--schemes", default="f32,int8-static,int8-dynamic,int8-weight,int8,int4,f16")
    parser.add_argument("--only", default="")
    parser.add_argument("--method", default="percentile", help="of int8-static")
    parser.add_argument("--stories")
    parser.add_argument("--table", action="store_true")
    a = parser.parse_args()
    peers = os.environ.get("QUANTD_PEERS", "")
    try:
        api = ort.Api(peers)
    except ort.Absent as absent:
        print(f"left out: every task: {absent}")
        return 0
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(peers, folder, a.stories, a.only.split(",") if a.only else []):
            print(f"# {task.name}: {task.unit}", flush=True)
            for scheme in ["f32"] + [s for s in a.schemes.split(",") if s != "f32"]: # the others are compared with it
                failed += not run(api, task, scheme, a.quantctl, folder, a.table, a.method)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
