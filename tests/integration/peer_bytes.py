#!/usr/bin/env python3
"""Every tensor of our files is what llama.cpp makes with `pure`, and llama.cpp reads ours to the same last digit.

usage: peer_bytes.py ROOT WORKER PEER-PROGRAMS-FOLDER
Ours is opened through /proc/self/fd/N, as an application opens a served descriptor.
"""
import os
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import engines
import gguf
import tap

ROOT, WORKER, PEERS = sys.argv[1:4]
LEFT_OUT = 77
# Written by the one who quantizes: each says these of itself.
OWN_FACTS = ("general.file_type", "general.quantization_version", "general.alignment")


def peer(program, *arguments):
    done = subprocess.run([os.path.join(PEERS, program), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{program} {' '.join(arguments)}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def peer_is_there():
    probe = os.path.join(PEERS, "peer_perplexity")
    return os.path.exists(probe) and subprocess.run([probe, "/dev/null", "/dev/null"],
                                                    capture_output=True).returncode != LEFT_OUT


def same_tensors(ours, theirs):
    (_, a), (_, b) = gguf.read(ours), gguf.read(theirs)
    if set(a) != set(b):
        raise AssertionError(f"other tensors: {sorted(set(a) ^ set(b))}")
    for name in a:
        if a[name][:3] != b[name][:3]:
            raise AssertionError(f"{a[name][:3]}, the peer has {b[name][:3]}")
        if a[name].data != b[name].data:
            raise AssertionError(f"'{name}' ({gguf.TYPES[a[name].kind][0]}): other bytes than the peer's")


def facts_are_kept(ours, source):
    kept, wanted = gguf.read(ours)[0], gguf.read(source)[0]
    for key, value in wanted.items():
        if key not in OWN_FACTS and kept.get(key) != value:
            raise AssertionError(f"{key}: {kept.get(key)!r}, the source says {value!r}")


def same_perplexity(ours, theirs, text):
    a = peer("peer_perplexity", "--fd-from-path", text, ours).split("tokens")[1]
    b = peer("peer_perplexity", text, theirs).split("tokens")[1]
    print(f"# tokens{a.rstrip()}")
    if a != b:
        raise AssertionError(f"tokens{a.rstrip()}, the peer's file: tokens{b.rstrip()}")


def judge(folder, name, source, text, scheme):
    ours, theirs = (os.path.join(folder, f"{name}-{scheme}-{who}.gguf") for who in ("ours", "theirs"))
    tap.case(f"{name} {scheme}: we quantize it", lambda: engines.quantize([WORKER], source, ours, scheme))
    tap.case(f"{name} {scheme}: the peer quantizes it", lambda: peer("peer_quantize", source, theirs, scheme, "pure"))
    tap.case(f"{name} {scheme}: every tensor has the peer's bytes", lambda: same_tensors(ours, theirs))
    tap.case(f"{name} {scheme}: every fact of the source is kept", lambda: facts_are_kept(ours, source))
    tap.case(f"{name} {scheme}: the peer's perplexity, to the last digit", lambda: same_perplexity(ours, theirs, text))


def main():
    models = engines.models(ROOT)
    if not peer_is_there():
        tap.left_out("peer_bytes", "no peer (./dev peers fetches it)")
        tap.end()
    if "stories260K" not in models:
        tap.left_out("peer_bytes stories260K", "no ../shared/models/stories260K")
    with tempfile.TemporaryDirectory() as folder:
        for name, (source, text) in models.items():
            for scheme in engines.SCHEMES:
                judge(folder, name, source, text, scheme)
    tap.end()


main()
