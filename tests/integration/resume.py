#!/usr/bin/env python3
"""quantd-worker --direct killed at random points of a long job: what was done is not done again, and the bytes are the same.

usage: resume.py WORKER [MIB KILLS]: size of the source and number of kills; 320 and 6 unless told.
"""
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import big_model
import tap

WORKER = sys.argv[1]
MIB, KILLS = (int(n) for n in (sys.argv[2:4] or (320, 6)))
PACKED_MIB = 288  # more than what is worth continuing
SHARD, THREADS, HEADER = 16 << 20, 2, 4 << 20  # HEADER: what reading the metadata may cost


QUANTIZE = ("--direct", "in.gguf", "--scheme", "q8_0")
PACK, UNPACK = ("--pack", "portable.gguf", "--layout", "r16k4p128"), ("--unpack", "packed.gguf")


def command(folder, name, work=QUANTIZE):
    form, source, *options = work
    return [WORKER, form, "--json", "--quiet", "--threads", str(THREADS), f"{folder}/{source}", f"{folder}/{name}", *options]


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def finish(folder, name, work=QUANTIZE):
    done = subprocess.run(command(folder, name, work), capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout)


def bytes_read(pid):
    with open(f"/proc/{pid}/io") as f:
        return int(next(line for line in f if line.startswith("rchar")).split()[1])


def kill_after(folder, seconds, work=QUANTIZE):
    """The bytes that the killed process had read; None: it was faster."""
    process = subprocess.Popen(command(folder, "out.gguf", work), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGSTOP)
    read = bytes_read(process.pid) if process.poll() is None else None
    process.kill()
    process.wait()
    return read


def one_kill(folder, seconds, want, work):
    read = kill_after(folder, seconds, work)
    if read is None or os.path.exists(f"{folder}/out.gguf"):
        os.unlink(f"{folder}/out.gguf")
        return False
    result = finish(folder, "out.gguf", work)
    redone = read - result["resumed_bytes"]
    if redone > THREADS * SHARD + HEADER:
        raise AssertionError(f"killed after {seconds:.3f} s: {read} bytes read, only {result['resumed_bytes']} kept")
    if digest(f"{folder}/out.gguf") != want:
        raise AssertionError(f"killed after {seconds:.3f} s: other bytes")
    os.unlink(f"{folder}/out.gguf")
    left = [name for name in os.listdir(folder) if name.startswith(".")]
    if left:
        raise AssertionError(f"left: {left}")
    return True


def killed_anywhere(folder, work=QUANTIZE):
    started = time.monotonic()
    finish(folder, "clean.gguf", work)
    length, want, rng, met = time.monotonic() - started, digest(f"{folder}/clean.gguf"), random.Random(3), 0
    while met < KILLS:
        met += one_kill(folder, rng.uniform(0, length), want, work)
    os.unlink(f"{folder}/clean.gguf")


def make_portable_and_packed(folder):
    big_model.write(f"{folder}/wide.gguf", 2 * PACKED_MIB)
    for name, work in (("portable.gguf", ("--direct", "wide.gguf", "--scheme", "q8_0")), ("packed.gguf", PACK)):
        finish(folder, name, work)
    os.unlink(f"{folder}/wide.gguf")


def stopped_in_the_middle(folder):
    """A run that stands still with its unfinished output; on a busy machine it may be done before it is stopped."""
    for _ in range(50):
        first = subprocess.Popen(command(folder, "out.gguf"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not os.path.exists(f"{folder}/.out.gguf.part") and first.poll() is None:
            time.sleep(0.001)
        time.sleep(0.02)
        if first.poll() is None:
            first.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if os.path.exists(f"{folder}/.out.gguf.part"):
                return first
            first.send_signal(signal.SIGCONT)
        first.wait()
        os.unlink(f"{folder}/out.gguf")
    raise AssertionError("50 runs were done before they could be stopped")


def two_at_once(folder):
    first = stopped_in_the_middle(folder)
    second = subprocess.run(command(folder, "out.gguf"), capture_output=True, text=True)
    os.kill(first.pid, signal.SIGCONT)
    if second.returncode != 73 or "by another process" not in second.stderr or first.wait() != 0:
        raise AssertionError(second.stderr)
    os.unlink(f"{folder}/out.gguf")


def source_changed(folder):
    """What was begun from other bytes is begun anew."""
    if kill_after(folder, 0.15) is None:
        return
    with open(f"{folder}/in.gguf", "r+b") as f:
        f.seek(-2, os.SEEK_END)
        f.write(b"\x00\x3c")
    if finish(folder, "out.gguf")["resumed_bytes"] != 0:
        raise AssertionError("continued from the bytes of another file")


def interrupted(folder):
    """Ctrl-C says how to go on."""
    process = subprocess.Popen(command(folder, "out.gguf"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not os.path.exists(f"{folder}/.out.gguf.part") and process.poll() is None:
        time.sleep(0.001)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    if process.returncode == 0:
        os.unlink(f"{folder}/out.gguf")
        return  # it was faster
    if "same command continues" not in said or not os.path.exists(f"{folder}/.out.gguf.part"):
        raise AssertionError(said)
    finish(folder, "out.gguf")
    os.unlink(f"{folder}/out.gguf")


def cached_mib(fd):
    """How many MiB of the file begin with a cached page; None where the file system does not tell."""
    n = 0
    for mib in range(os.fstat(fd).st_size >> 20):
        try:
            n += os.preadv(fd, [bytearray(1)], mib << 20, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            pass
        except OSError:
            return None
    return n


def leaves_the_page_cache_as_found(folder):
    fd = os.open(f"{folder}/in.gguf", os.O_RDONLY)
    os.fsync(fd)
    for keep, want_cold in (((), True), (("--keep-cache",), False), ((), False)):
        if want_cold:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if cached_mib(fd):
                tap.left_out("page cache", "this file system does not tell, or keeps its pages")
                break
        subprocess.run([*command(folder, "out.gguf"), "--force", *keep], stdout=subprocess.DEVNULL, check=True)
        if (cached_mib(fd) < MIB // 2) != want_cold:
            raise AssertionError(f"{keep}: {cached_mib(fd)} of {MIB} MiB are cached")
    os.close(fd)
    if os.path.exists(f"{folder}/out.gguf"):
        os.unlink(f"{folder}/out.gguf")


with tempfile.TemporaryDirectory(prefix="quantd-resume-") as FOLDER:
    big_model.write(f"{FOLDER}/in.gguf", MIB)
    tap.case(f"killed at {KILLS} random points of {MIB} MiB: the same bytes, a shard a thread redone", lambda: killed_anywhere(FOLDER))
    tap.case("interrupted: says how to go on", lambda: interrupted(FOLDER))
    tap.case("two at once: the second is refused", lambda: two_at_once(FOLDER))
    tap.case("the page cache is left as it was found", lambda: leaves_the_page_cache_as_found(FOLDER))
    tap.case("source changed: begins anew", lambda: source_changed(FOLDER))
    os.unlink(f"{FOLDER}/in.gguf")
    make_portable_and_packed(FOLDER)
    for WORK in (PACK, UNPACK):
        tap.case(f"{WORK[0]} killed at {KILLS} random points: the same bytes, a shard a thread redone", lambda: killed_anywhere(FOLDER, WORK))
tap.end()
