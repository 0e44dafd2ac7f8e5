#!/usr/bin/env python3
"""Weighed by an importance matrix, every tensor of our files is what llama.cpp makes of the same values.

usage: peer_importance.py ROOT WORKER PEER-PROGRAMS-FOLDER
Matrices are made by seed (in GGUF, some tensors without an entry) and from the model's own activations (the older form).
"""
import os
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import engines
import gguf
import imatrix
import tap

ROOT, WORKER, PEERS = sys.argv[1:4]
LEFT_OUT = 77
# Every scheme whose encoders look at importance.
SCHEMES = ("q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k_m", "q4_k_m", "q5_k_m", "q6_k", "iq4_nl", "iq4_xs")


def direct(source, matrix, scheme, *more):
    command = [WORKER, "--direct", source, "--scheme", scheme, "--imatrix", matrix, "--pure", *more]
    return subprocess.run(command, capture_output=True, text=True)


def why_not(source, matrix, scheme):
    """Why this scheme cannot be compared; None where it can."""
    plan = direct(source, matrix, scheme, "--dry-run")
    if "unknown scheme" in plan.stderr:
        return "no such scheme yet"
    if plan.returncode:
        raise RuntimeError(plan.stderr)
    return None if "; weighted" in plan.stdout else "no encoder looks at importance yet"


def ours(source, matrix, scheme, out):
    done = direct(source, matrix, scheme, "--force", "--quiet", "-o", out)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return gguf.read(out)


def theirs(source, raw, scheme, out):
    command = [os.path.join(PEERS, "peer_quantize"), source, out, scheme, "pure"]
    done = subprocess.run(command, env={**os.environ, "PEER_IMPORTANCE": raw}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}: {done.stderr}")
    return gguf.read(out)


def same_tensors(folder, source, matrix, scheme):
    (_, a) = ours(source, matrix, scheme, f"{folder}/ours.gguf")
    (_, b) = theirs(source, matrix + ".raw", scheme, f"{folder}/theirs.gguf")
    if set(a) != set(b):
        raise AssertionError(f"other tensors: {sorted(set(a) ^ set(b))}")
    wrong = [f"{n} ({gguf.TYPES[a[n].kind][0]}, the peer's {gguf.TYPES[b[n].kind][0]})" for n in a if a[n] != b[n]]
    if wrong:
        raise AssertionError(f"{len(wrong)} of {len(a)} tensors have other bytes than the peer's: {', '.join(wrong)}")


def differs_from_unweighted(folder, source, matrix, scheme):
    (_, weighted) = ours(source, matrix, scheme, f"{folder}/ours.gguf")
    engines.quantize([WORKER], source, f"{folder}/plain.gguf", scheme)
    (_, plain) = gguf.read(f"{folder}/plain.gguf")
    if weighted == plain:
        raise AssertionError("the matrix made no difference")


def make_matrices(folder, name, source, text):
    """{what: path}, each with the values beside it for the peer."""
    made = {"seeded": f"{folder}/{name}.gguf", "activations": f"{folder}/{name}.dat"}
    imatrix.make(source, made["seeded"], seed=11, leave_out="blk.1.attn_k")
    imatrix.make(source, made["activations"], dat=True, text=text, n_tokens=24)
    for path in made.values():
        imatrix.write_raw(path + ".raw", imatrix.read(path))
    return made


def judge(folder, name, source, text):
    made = make_matrices(folder, name, source, text)
    for scheme in SCHEMES:
        why = why_not(source, made["seeded"], scheme)
        if why:
            tap.left_out(f"peer_importance {name} {scheme}", why)
            continue
        for what, path in made.items():
            tap.case(f"{name} {scheme} {what}: every tensor has the peer's bytes", lambda: same_tensors(folder, source, path, scheme))
        tap.case(f"{name} {scheme}: importance makes other bytes", lambda: differs_from_unweighted(folder, source, path, scheme))


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
            judge(folder, name, source, text)
    tap.end()


main()
