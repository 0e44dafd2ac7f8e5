"""The engine without a daemon: `quantd-worker --direct`, as quantctl quantize runs it, and the models it is tried on."""
import hashlib
import os
import subprocess

SCHEMES = ("f16", "bf16", "q8_0", "q4_0")


def models(root):
    """{name: (GGUF, text to judge by)}: the shipped one, and the shared one where it is."""
    found = {"tiny-kjv": (os.path.join(root, "models/tiny-kjv.gguf"), os.path.join(root, "models/tiny-kjv/eval.txt"))}
    shared = os.environ.get("QUANTD_SHARED", os.path.join(root, "..", "shared"))
    folder = os.path.join(shared, "models", "stories260K")
    if os.path.exists(os.path.join(folder, "stories260K-f32.gguf")):
        found["stories260K"] = (os.path.join(folder, "stories260K-f32.gguf"), os.path.join(folder, "eval_stories.txt"))
    return found


def quantize(worker, source, out, scheme, pure=True, threads=1, cpu=None):
    """@worker: the command's words. Raises with the worker's own words when it fails."""
    command = [*worker, "--direct", source, "-o", out, "--scheme", scheme, "--threads", str(threads), "--force"]
    env = {**os.environ, **({"QUANTD_CPU": cpu} if cpu else {})}
    done = subprocess.run(command + ["--pure"] * pure, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip()}")


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()
