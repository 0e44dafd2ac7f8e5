#!/usr/bin/env python3
"""llama.cpp refuses a packed file, and says why, instead of reading garbage: as a model, and as one to quantize.

usage: peer_packed.py ROOT WORKER PEER-PROGRAMS-FOLDER
"""
import os
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import engines
import tap

ROOT, WORKER, PEERS = sys.argv[1:4]
LEFT_OUT = 77
LAYOUTS = ("r4k4p128", "r4k8p128", "r8k4p128", "r16k4p128")
UNKNOWN = "unknown model architecture: 'quantd-packed'"


def peer(program, *arguments):
    return subprocess.run([os.path.join(PEERS, program), *arguments], capture_output=True, text=True)


def peer_is_there():
    return os.path.exists(os.path.join(PEERS, "peer_generate")) and peer("peer_generate", "/dev/null", "x", "1").returncode != LEFT_OUT


def refused(done):
    if done.returncode == 0 or done.returncode < 0 or UNKNOWN not in done.stderr:
        raise AssertionError(f"status {done.returncode}: {done.stdout} {done.stderr}")


def judge(folder, layout):
    portable, packed, out = (os.path.join(folder, name) for name in ("portable.gguf", f"{layout}.gguf", "out.gguf"))
    subprocess.run([WORKER, "--pack", portable, packed, "--layout", layout, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    refused(peer("peer_generate", packed, "In the", "4"))
    refused(peer("peer_generate", "--fd-from-path", packed, "In the", "4"))
    refused(peer("peer_quantize", packed, out, "q4_0", "requantize"))


def unpacked_is_read(folder):
    portable, packed, back = (os.path.join(folder, name) for name in ("portable.gguf", "r16k4p128.gguf", "back.gguf"))
    subprocess.run([WORKER, "--unpack", packed, back, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    a, b = peer("peer_generate", portable, "In the", "8"), peer("peer_generate", back, "In the", "8")
    if a.returncode or a.stdout != b.stdout:
        raise AssertionError(f"{a.stdout} {b.stdout} {b.stderr}")


if not peer_is_there():
    tap.left_out("peer_packed", "no peer (./dev peers fetches it)")
else:
    with tempfile.TemporaryDirectory() as FOLDER:
        engines.quantize([WORKER], os.path.join(ROOT, "models", "tiny-kjv.gguf"), os.path.join(FOLDER, "portable.gguf"), "q8_0")
        for LAYOUT in LAYOUTS:
            tap.case(f"{LAYOUT}: the peer neither loads nor quantizes it", lambda: judge(FOLDER, LAYOUT))
        tap.case("r16k4p128: unpacked, the peer reads it as before", lambda: unpacked_is_read(FOLDER))
tap.end()
