#!/usr/bin/env python3
"""A large model through the daemon: what hashing, signing and fsync add, what memory it takes, and how many copies ten apps need.

usage: bench_share.py DAEMON WORKER QUANTCTL MAP_ARTIFACT [MIB] [SCHEME]
"""
import glob
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import big_model
from house import House

DAEMON, WORKER, QUANTCTL, MAP_ARTIFACT = sys.argv[1:5]
MIB = int(sys.argv[5]) if len(sys.argv) > 5 else int(os.environ.get("QUANTD_BENCH_MIB", 2048))
SCHEME = sys.argv[6] if len(sys.argv) > 6 else "q8_0"
N_APPS = 10


def memory(pid, what="VmHWM"):
    """KiB of one line of /proc/PID/status; 0 where the process is gone."""
    try:
        with open(f"/proc/{pid}/status") as f:
            return int(re.search(rf"{what}:\s+(\d+)", f.read()).group(1))
    except (OSError, AttributeError):
        return 0


class WorkerWatch(threading.Thread):
    """The highest resident set and the CPU seconds of any child of the daemon."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.pid, self.peak_kib, self.cpu_s, self.end = daemon, 0, 0.0, False

    def run(self):
        tick = os.sysconf("SC_CLK_TCK")
        while not self.end:
            for path in glob.glob(f"/proc/{self.pid}/task/*/children"):
                try:
                    with open(path) as f:
                        children = f.read().split()
                    for child in children:
                        self.peak_kib = max(self.peak_kib, memory(child))
                        with open(f"/proc/{child}/stat") as f:
                            fields = f.read().rsplit(")", 1)[1].split()
                        self.cpu_s = max(self.cpu_s, (int(fields[11]) + int(fields[12])) / tick)
                except (OSError, IndexError):
                    continue
            time.sleep(0.01)


def cpu_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def direct(model, folder):
    """Wall and CPU seconds of the one-shot form."""
    out = os.path.join(folder, "direct.gguf")
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([WORKER, "--direct", model, out, "--scheme", SCHEME, "--quiet"], check=True)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    fd = os.open(out, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    size = os.path.getsize(out)
    os.remove(out)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, size


def sha256_rate():
    """MB/s of the library that quantd uses, one thread."""
    done = subprocess.run(["openssl", "speed", "-seconds", "1", "-bytes", "1048576", "-evp", "sha256"], capture_output=True, text=True)
    found = re.findall(r"^(?:sha256|SHA256)\s+([0-9.]+)k", done.stdout, re.M)
    return float(found[-1]) / 1000 if found else None


def build(house, model_bytes, direct_cost):
    watch = WorkerWatch(house.process.pid)
    watch.start()
    before, start = cpu_of(house.process.pid), time.monotonic()
    opened = house.ctl("open", "big", "--scheme", SCHEME, timeout=1200)
    wall = time.monotonic() - start
    watch.end = True
    watch.join()
    wall_direct, cpu_direct, size = direct_cost
    daemon_cpu = cpu_of(house.process.pid) - before
    print(f"direct      wall {wall_direct:6.2f} s  cpu {cpu_direct:6.2f} s  {size} bytes")
    print(f"through the daemon  wall {wall:6.2f} s  worker cpu {watch.cpu_s:.2f} s (digests of what it read included)  daemon cpu {daemon_cpu:.2f} s")
    rate = sha256_rate()
    if rate:
        added = wall - wall_direct
        floor = (model_bytes + opened["bytes"]) / 1e6 / rate
        print(f"added wall {added:.2f} s; bytes of source and result over the SHA-256 rate ({rate:.0f} MB/s, one thread): {floor:.2f} s; ratio {added / floor:.2f} (bar 1.3)")
    print(f"peak RSS    worker {watch.peak_kib / 1024:.1f} MiB (bar 256)  daemon {memory(house.process.pid) / 1024:.1f} MiB (bar 16)")
    return opened["bytes"]


def rollup(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return {k: int(v) for k, v in re.findall(r"^(\w+):\s+(\d+) kB", f.read(), re.M)}


def share(house, size):
    apps = [subprocess.Popen([MAP_ARTIFACT, "big", SCHEME], env=house.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(N_APPS)]
    for app in apps:
        assert "maps" in app.stdout.readline()  # it has touched every page
    counts = [rollup(app.pid) for app in apps]
    for app in apps:
        app.stdin.write("\n\n")
        app.stdin.close()
    for app in apps:
        assert app.wait() == 0
    pss = sum(c["Pss"] for c in counts) / 1024
    print(f"{N_APPS} apps    sum of Rss {sum(c['Rss'] for c in counts) / 1024:.0f} MiB  sum of Pss {pss:.0f} MiB = {pss * 1024 * 1024 / size:.3f} of the file (bar 1.05)  "
          f"private dirty at most {max(c['Private_Dirty'] for c in counts) / 1024:.2f} MiB each (bar 2)")


with tempfile.TemporaryDirectory(prefix="quantd-bench.", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
    with House(DAEMON, WORKER, QUANTCTL, folder=folder) as house:
        model = house.path("models", "big.gguf")
        big_model.write(model, MIB)
        model_bytes = os.path.getsize(model)
        print(f"model of {model_bytes / 1e9:.2f} GB, f16, page cache warm; {SCHEME}")
        cost = direct(model, folder)
        house.start()
        house.until_ready("big")
        size = build(house, model_bytes, cost)
        share(house, size)
