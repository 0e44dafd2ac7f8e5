#!/usr/bin/env python3
"""A second reader's opinion of the files that we write: @huggingface/gguf reads what our own header says, for every scheme.

usage: hf_gguf.py ROOT WORKER. Left out by name where Node 20 or the package (./dev peers) is missing.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import gguf
import tap

ROOT, WORKER = sys.argv[1:3]
PEERS = os.environ.get("QUANTD_PEERS", os.path.join(ROOT, "build", "peers"))
MODULES = os.path.join(PEERS, "hf", "node_modules")
MODEL = os.path.join(ROOT, "models", "tiny-kjv.gguf")
SCRIPT = os.path.join(ROOT, "tests", "peers", "gguf_info.mjs")


def why_not():
    node = shutil.which("node")
    if not node:
        return "no node"
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    if int(re.match(r"v(\d+)", version)[1]) < 20:
        return f"node is {version.strip()}, the package needs 20"
    return None if os.path.isdir(MODULES) else f"no @huggingface/gguf in {MODULES} (./dev peers)"


def schemes():
    """All of GGUF that the worker knows, from its own list."""
    said = subprocess.run([WORKER, "--direct", MODEL, "/dev/null", "--scheme", "none-such"], capture_output=True, text=True).stderr
    return [s for s in re.search(r"[sS]chemes: (.*)", said)[1].split(", ") if s != "auto" and not s.startswith("int")]


def header(path):
    """(facts, start of the data, {name: (shape, type, offset)}) by our own second reader."""
    with open(path, "rb") as f:
        r = gguf.Reader(f.read())
    r.at = 8
    n_tensors, n_facts = r.one("<Q"), r.one("<Q")
    facts = dict(r.fact() for _ in range(n_facts))
    entries = {name: (shape, kind, offset) for name, shape, kind, offset in (r.entry() for _ in range(n_tensors))}
    alignment = facts.get("general.alignment", 32)
    return facts, -(-r.at // alignment) * alignment, entries


def agrees(path, told):
    facts, start, entries = header(path)
    if told["start"] != start or {t["name"]: (t["shape"], t["type"], t["offset"]) for t in told["tensors"]} != entries:
        raise AssertionError("other tensors")
    for key in ("general.architecture", "general.file_type", "general.alignment", "quantd.scheme", "quantd.recipe"):
        if told["facts"].get(key) != facts[key]:
            raise AssertionError(f"{key} is {told['facts'].get(key)!r}, not {facts[key]!r}")


def make(folder, scheme):
    path = os.path.join(folder, f"{scheme}.gguf")
    done = subprocess.run([WORKER, "--direct", MODEL, path, "--scheme", scheme, "--quiet"], capture_output=True, text=True)
    if done.returncode == 0:
        return path
    if "importance" in done.stderr:
        return None  # a scheme that asks for more than a model
    raise AssertionError(done.stderr)


def packed(folder, path):
    """What is packed is listed, too: bytes, under an architecture of its own."""
    out = os.path.join(folder, "packed.gguf")
    subprocess.run([WORKER, "--pack", path, out, "--layout", "r16k4p128", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    read = subprocess.run(["node", SCRIPT, MODULES, out], capture_output=True, text=True)
    told = json.loads(read.stdout)
    agrees(out, told)
    if told["facts"]["general.architecture"] != "quantd-packed" or {t["type"] for t in told["tensors"]} != {24}:
        raise AssertionError(told["facts"])


def main(folder):
    files = {scheme: path for scheme in schemes() if (path := make(folder, scheme))}
    read = subprocess.run(["node", SCRIPT, MODULES, *files.values()], capture_output=True, text=True)
    told = [json.loads(line) for line in read.stdout.splitlines()]
    tap.case("@huggingface/gguf reads every file", lambda: None if read.returncode == 0 and len(told) == len(files) else 1 / 0)
    for scheme, info in zip(files, told):
        tap.case(f"@huggingface/gguf reads what we wrote: {scheme}", lambda: agrees(files[scheme], info))
    tap.case("@huggingface/gguf lists a packed file", lambda: packed(folder, files["q8_0"]))


if WHY := why_not():
    tap.left_out("hf-gguf", WHY)
else:
    with tempfile.TemporaryDirectory() as FOLDER:
        main(FOLDER)
tap.end()
