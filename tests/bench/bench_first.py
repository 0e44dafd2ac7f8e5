#!/usr/bin/env python3
"""From nothing to a product: a model of about 1 GB opened by a fresh process, and what four processes that compute with all of it
take, beside libllama, which rearranges the weights when it loads them. Then tokens per second of client/examples/chat.c and of
libllama, one thread each.

usage: bench_first.py DAEMON WORKER QUANTCTL FIRST-PRODUCT FIRST-LINE EXAMPLE-CHAT PEER-PROGRAMS-FOLDER [MIB]
$QUANTD_BENCH_MIB is the size, 1000 by default. The page cache is warm.
"""
import os
import re
import statistics
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import big_llama
from house import House

DAEMON, WORKER, QUANTCTL, FIRST_PRODUCT, FIRST_LINE, CHAT, PEERS = (os.path.abspath(p) for p in sys.argv[1:8])
PEER_LOAD, PEER_CHAT = os.path.join(PEERS, "peer_load"), os.path.join(PEERS, "peer_chat")
MIB = int(sys.argv[8]) if len(sys.argv) > 8 else int(os.environ.get("QUANTD_BENCH_MIB", 1000))
LAYOUTS = ("portable", "native")
TENSOR = "blk.0.attn_q.weight"
ROUNDS, N_APPS, LEFT_OUT = 9, 4, 77
PROMPT, N_TOKENS, RATE_ROUNDS = "a b c", 16, 3
PEER_WORDS = {"libllama": (), "libllama, no mmap": ("no-mmap",), "libllama, no repack": ("no-repack",)}


def milliseconds(house, command):
    done = subprocess.run([FIRST_LINE, *command], env=house.env, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


def race(house, commands):
    """All in turn, again and again: what disturbs the machine disturbs all of them."""
    times = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            times[name].append(milliseconds(house, command))
    for name, found in times.items():
        print(f"  {name:24} {statistics.median(found):9.2f} ms   (best {min(found):.2f})")


def rollup(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return {k: int(v) for k, v in re.findall(r"^(\w+):\s+(\d+) kB", f.read(), re.M)}


def share(house, name, command, size):
    """@N_APPS at once; each has computed with the whole model when it is counted."""
    apps = [subprocess.Popen(command, env=house.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(N_APPS)]
    try:
        for app in apps:
            assert app.stdout.readline()
        for app in apps:
            print("go", file=app.stdin, flush=True)
        said = [app.stdout.readline() for app in apps]
        assert all("whole model" in line for line in said), said
        counts = [rollup(app.pid) for app in apps]
    finally:
        for app in apps:
            app.stdin.close()
            app.wait()
    pss, private = sum(c["Pss"] for c in counts) / 1024, max(c["Private_Dirty"] for c in counts) / 1024
    print(f"  {name:24} sum of Pss {pss:7.0f} MiB = {pss * 1024 * 1024 / size:.3f} of the file   private dirty at most {private:.1f} MiB each")


def rates(house, kind, portable):
    commands = {"chat.c, native": [CHAT, "--model", kind, "--scheme", kind, "--prompt", PROMPT, "--tokens", str(N_TOKENS), "--temp", "0", "--ignore-eos", "1"]}
    if peer_is_there():
        commands["libllama"] = [PEER_CHAT, portable, PROMPT, str(N_TOKENS)]
    found = {name: [] for name in commands}
    for _ in range(RATE_ROUNDS):
        for name, command in commands.items():
            done = subprocess.run(command, env=house.env, capture_output=True, text=True, check=True)
            found[name].append(float(re.search(r"made:? .* ([0-9.]+) per second", done.stdout + done.stderr).group(1)))
    print(f"tokens per second, one thread: {', '.join(f'{name} {statistics.median(r):.2f}' for name, r in found.items())}")


def peer_is_there():
    return os.path.exists(PEER_LOAD) and subprocess.run([PEER_LOAD, "/dev/null"], capture_output=True).returncode != LEFT_OUT


def build(house, kind, layout):
    """Has the artifact made; its largest new file and that one's bytes."""
    before = set(house.objects())
    subprocess.run([FIRST_PRODUCT, kind, kind, layout, TENSOR], env=house.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return next(o for o in house.objects() if o not in before)


def bench(house, kind):
    layers = big_llama.write(house.path("models", kind + ".gguf"), kind, MIB)
    house.until_ready(kind)
    portable, size = build(house, kind, "portable")
    for layout in LAYOUTS[1:]:
        build(house, kind, layout)
    commands = {f"quantd, {layout}": [FIRST_PRODUCT, kind, kind, layout, TENSOR] for layout in LAYOUTS}
    if peer_is_there():
        commands.update({name: [PEER_LOAD, portable, *words] for name, words in PEER_WORDS.items()})
    print(f"{kind}: {size / 1e9:.2f} GB, {layers} layers of Llama 2 7B. From exec to the first product printed (libllama: to the model loaded)")
    race(house, commands)
    print(f"{N_APPS} processes, each of which has computed with the whole model")
    for name, command in commands.items():
        share(house, name, command, size)
    rates(house, kind, portable)
    os.remove(house.path("models", kind + ".gguf"))


with tempfile.TemporaryDirectory(prefix="quantd-bench.", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
    with House(DAEMON, WORKER, QUANTCTL, folder=folder) as house:
        house.start()
        if not peer_is_there():
            print("PEER LEFT OUT (./dev peers fetches it)")
        for kind in big_llama.BLOCKS:
            bench(house, kind)
