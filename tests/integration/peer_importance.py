#!/usr/bin/env python3
"""Weighed by an importance matrix, every tensor of our files is what llama.cpp makes of the same values.

usage: peer_importance.py ROOT WORKER PEER-PROGRAMS-FOLDER [--short]
Models: the shipped one and ../shared/models/stories260K, in mixtures and pure, with a matrix made by seed (in GGUF, some tensors
without an entry) and one of the model's own activations (the older form); some of tests/tools/mixed_models.py by seed, those with
experts among them.
"""
import os
import re
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import engines
import gguf
import imatrix
import mixed_models
import tap

ROOT, WORKER, PEERS = sys.argv[1:4]
LEFT_OUT = 77
SCHEMES = ("q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q2_k_s", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k",
           "iq4_nl", "iq4_xs")
if "--short" in sys.argv:
    SCHEMES = SCHEMES[::4]
MIXED = ("gqa4", "rows-320-172", "experts-8", "experts-8-odd", "experts-4")
# Types whose encoders look at importance.
WEIGHED = {"q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs"}


def direct(source, matrix, scheme, *more):
    return subprocess.run([WORKER, "--direct", source, "--scheme", scheme, "--imatrix", matrix, *more], capture_output=True, text=True)


def not_weighed(source, matrix, scheme, *how):
    """Types of this file that should be weighed and are not, since their encoders are still to come."""
    plan = direct(source, matrix, scheme, "--dry-run", *how)
    if plan.returncode:
        raise RuntimeError(plan.stderr)
    names = set(imatrix.read(matrix))
    lines = re.findall(r"^(\S+) .* (\S+) +-> (\S+) +\d+ at \d+ +(.*)$", plan.stdout, re.M)
    return {to for name, of, to, why in lines if name in names and to != of and to in WEIGHED and not why.endswith("; weighted")}


def ours(source, matrix, scheme, out, *how):
    done = direct(source, matrix, scheme, "--force", "--quiet", "-o", out, *how)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return gguf.read(out)


def peer_quantize(source, raw, scheme, out, *how):
    command = [os.path.join(PEERS, "peer_quantize"), source, out, scheme, *(h.strip("-") for h in how)]
    return subprocess.run(command, env={**os.environ, **({"PEER_IMPORTANCE": raw} if raw else {})}, capture_output=True, text=True)


def theirs(source, matrix, scheme, out, *how):
    done = peer_quantize(source, matrix + ".raw", scheme, out, *how)
    if done.returncode:
        raise RuntimeError(f"peer_quantize {source} {scheme} {how}: status {done.returncode}: {done.stderr}")
    return gguf.read(out)


def same_tensors(folder, source, matrix, scheme, *how):
    (_, a) = ours(source, matrix, scheme, f"{folder}/ours.gguf", *how)
    (_, b) = theirs(source, matrix, scheme, f"{folder}/theirs.gguf", *how)
    if set(a) != set(b):
        raise AssertionError(f"other tensors: {sorted(set(a) ^ set(b))}")
    wrong = [f"{n} ({gguf.TYPES[a[n].kind][0]}, the peer's {gguf.TYPES[b[n].kind][0]})" for n in a if a[n] != b[n]]
    if wrong:
        raise AssertionError(f"{len(wrong)} of {len(a)} tensors have other bytes than the peer's: {', '.join(wrong)}")


def differs_from_unweighted(folder, source, matrix, scheme):
    (_, weighted) = ours(source, matrix, scheme, f"{folder}/ours.gguf", "--pure")
    engines.quantize([WORKER], source, f"{folder}/plain.gguf", scheme)
    (_, plain) = gguf.read(f"{folder}/plain.gguf")
    if weighted == plain:
        raise AssertionError("the matrix made no difference")


def both_refuse(folder, source, matrix, scheme, *words):
    """Where a type is worthless without importance: no matrix at all, or one with a hole."""
    if matrix:
        done = direct(source, matrix, scheme, "--force", "-o", f"{folder}/x.gguf")
    else:
        done = subprocess.run([WORKER, "--direct", source, "--scheme", scheme, "--force", "-o", f"{folder}/x.gguf"], capture_output=True, text=True)
    peer = peer_quantize(source, matrix and matrix + ".raw", scheme, f"{folder}/y.gguf")
    if not done.returncode or not peer.returncode or any(w not in done.stderr for w in words) or os.path.exists(f"{folder}/x.gguf"):
        raise AssertionError(f"we: status {done.returncode} {done.stderr}; the peer: status {peer.returncode}")


def make(folder, name, source, **how):
    """A matrix with its values beside it for the peer."""
    path = f"{folder}/{name}"
    imatrix.make(source, path, **how)
    imatrix.write_raw(path + ".raw", imatrix.read(path))
    return path


def compare(folder, name, source, matrix, what, scheme, *how):
    missing = not_weighed(source, matrix, scheme, *how)
    title = f"{name} {scheme}{' pure' if how else ''} {what}"
    if missing:
        tap.left_out(f"peer_importance {title}", f"no encoder of {', '.join(sorted(missing))} looks at importance yet")
    else:
        tap.case(f"{title}: every tensor has the peer's bytes", lambda: same_tensors(folder, source, matrix, scheme, *how))
    return not missing


def judge(folder, name, source, text):
    seeded = make(folder, f"{name}.gguf", source, seed=11)
    holes = make(folder, f"{name}-holes.gguf", source, seed=12, leave_out="blk.1.attn_k")
    read = make(folder, f"{name}.dat", source, dat=True, text=text, n_tokens=24)
    for scheme in SCHEMES:
        whole = compare(folder, name, source, seeded, "seeded", scheme)
        compare(folder, name, source, read, "activations", scheme)
        compare(folder, name, source, holes if scheme != "q2_k_s" else read, "with holes", scheme, "--pure")
        if whole and scheme == "q4_k_m":
            tap.case(f"{name} {scheme}: importance makes other bytes", lambda: differs_from_unweighted(folder, source, read, scheme))
    return holes


def judge_shipped(folder, name, source, text):
    holes = judge(folder, name, source, text)
    if name == "tiny-kjv":  # the other one's rows fit no block of 256
        tap.case(f"{name} q2_k_s: refused by both without a matrix", lambda: both_refuse(folder, source, None, "q2_k_s", "needs an importance matrix", "--imatrix"))
        tap.case(f"{name} q2_k_s: refused by both where the matrix has a hole", lambda: both_refuse(folder, source, holes, "q2_k_s", "'blk.1.attn_k.weight'", "nothing for it"))


def judge_mixed(folder):
    for model in (m for m in mixed_models.models() if m.name in MIXED):
        source = f"{folder}/{model.name}-source.gguf"
        mixed_models.write(model, source)
        matrix = make(folder, f"{model.name}.gguf", source, seed=13)
        for scheme in SCHEMES:
            compare(folder, model.name, source, matrix, "seeded", scheme)


def peer_is_there():
    probe = os.path.join(PEERS, "peer_perplexity")
    return os.path.exists(probe) and subprocess.run([probe, "/dev/null", "/dev/null"], capture_output=True).returncode != LEFT_OUT


def main():
    models = engines.models(ROOT)
    if not peer_is_there():
        tap.left_out("peer_importance", "no peer (./dev peers fetches it)")
        tap.end()
    if "stories260K" not in models:
        tap.left_out("peer_importance stories260K", "no ../shared/models/stories260K")
    with tempfile.TemporaryDirectory() as folder:
        for name, (source, text) in models.items():
            judge_shipped(folder, name, source, text)
        judge_mixed(folder)
    tap.end()


main()
