#!/usr/bin/env python3
"""One flipped byte anywhere in the store is never served: noticed, reported, rebuilt.

usage: tamper.py ROOT DAEMON WORKER QUANTCTL
Through the file system it is noticed at the next open; beneath it (a loop device's backing file is edited; root) by verify, by a
strict open and by a client that verifies; in a manifest, in a table, in the key file likewise.
"""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import tap
from house import Failed, House

ROOT, *PROGRAMS = sys.argv[1:5]
MODEL = os.path.join(ROOT, "models", "tiny-kjv.gguf")
EX_DATAERR, EX_NOINPUT = 65, 66


def flip(path, offset):
    """One bit, through the file system: what any process of the daemon's uid could do."""
    mode = os.stat(path).st_mode
    os.chmod(path, 0o600)
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 1]))
    os.chmod(path, mode & 0o777)


def ref_of(house, key):
    return house.path("cache", "quantd", "refs", key)


def open_model(house, *options):
    return house.ctl("open", "tiny-kjv", "--scheme", "q8_0", *options)


def file_digest(house):
    """What a client gets: the file's own bytes, by way of an open."""
    out = house.path("copy.gguf")
    open_model(house, "-o", out, "--force")
    return subprocess.run(["sha256sum", out], capture_output=True, check=True).stdout.split()[0]


def in_house(check, **options):
    def run():
        with House(*PROGRAMS, **options) as house:
            house.add(MODEL)
            house.start()
            house.until_ready("tiny-kjv")
            check(house, open_model(house)["key"], file_digest(house))
    return run


def is_rebuilt(house, key, good):
    """The next open serves the right bytes under the same key, and what was damaged lies in quarantine."""
    assert open_model(house)["key"] == key
    assert file_digest(house) == good
    assert house.ctl("verify")["problems"] == []


def object_through_the_file_system(house, key, good):
    path, size = house.objects()[0]
    flip(path, size // 2)
    is_rebuilt(house, key, good)


def object_seen_by_verify(house, key, good):
    path, size = house.objects()[0]
    flip(path, size // 2)
    assert house.status_of("verify") == EX_DATAERR
    house.until("it is rebuilt", lambda: [a for a in house.ctl("ls")["artifacts"] if a["key"] == key])
    is_rebuilt(house, key, good)


def every_small_object(house, key, good):
    """The tables: tensors, metadata, shard list."""
    for path, size in house.objects()[1:]:
        flip(path, size // 2)
        is_rebuilt(house, key, good)


def manifest(house, key, good):
    for where in (10, os.path.getsize(ref_of(house, key)) // 2, os.path.getsize(ref_of(house, key)) - 5):
        house.stop()
        flip(ref_of(house, key), where)
        house.start()
        house.until_ready("tiny-kjv")
        is_rebuilt(house, key, good)


def manifest_under_the_running_daemon(house, key, good):
    flip(ref_of(house, key), 10)
    assert house.status_of("verify") == EX_DATAERR, "verify reads the envelope too"
    house.until("it is rebuilt", lambda: [a for a in house.ctl("ls")["artifacts"] if a["key"] == key])
    is_rebuilt(house, key, good)


def cut_and_zeroed(house, key, good):
    path, size = house.objects()[0]
    os.chmod(path, 0o600)
    os.truncate(path, size - 1)
    is_rebuilt(house, key, good)
    path, size = house.objects()[0]
    os.chmod(path, 0o600)
    with open(path, "r+b") as f:
        f.write(bytes(4096))
    is_rebuilt(house, key, good)


def key_file(house, key, good):
    """Signing stops, no new key appears by itself, status says so; what was signed before is served on."""
    house.stop()
    [path] = [os.path.join(folder, n) for folder, _, names in os.walk(house.path("state")) for n in names if "key" in n]
    flip(path, os.path.getsize(path) // 2)
    with open(path, "rb") as f:
        damaged = f.read()
    house.start()
    house.until_ready("tiny-kjv")
    status = house.ctl("status")
    assert status["state"] == "signing-stopped", status
    assert "key" in status["problem"], status
    try:
        house.ctl("open", "tiny-kjv", "--scheme", "q4_0")
        raise AssertionError("an artifact was made without a key")
    except Failed as e:
        assert "key" in e.text, e.text
    with open(path, "rb") as f:
        assert f.read() == damaged, "the key file was replaced"


def shell(*command):
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def beneath_the_file_system():
    """The cache on a loop-mounted ext4 whose image is edited behind the kernel's back."""
    with tempfile.TemporaryDirectory(prefix="quantd-loop.") as folder:
        image, mount = os.path.join(folder, "image"), os.path.join(folder, "house")
        with open(image, "wb") as f:
            f.truncate(96 << 20)
        os.mkdir(mount)
        shell("mkfs.ext4", "-q", "-F", image)
        shell("mount", "-o", "loop", image, mount)
        try:
            with House(*PROGRAMS, folder=mount) as house:
                house.add(MODEL)
                house.start()
                house.until_ready("tiny-kjv")
                key, good = open_model(house)["key"], file_digest(house)
                check_beneath(house, image, key, good)
                house.stop()
        finally:
            shell("umount", mount)


def damage_image(house, image):
    """Flips a bit of the payload in the image and makes the kernel forget what it has cached."""
    path, size = house.objects()[0]
    with open(path, "rb") as f:
        f.seek(size // 2 & ~4095)
        page = f.read(4096)
    os.remove(house.path("copy.gguf"))  # holds the same page
    shell("sync")
    with open(image, "r+b") as f:
        at = f.read().rfind(page)
        found = []
        f.seek(0)
        data = f.read()
        start = data.find(page)
        while start >= 0:
            found.append(start)
            start = data.find(page, start + 4096)
        assert found, "the page is not in the image"
        for at in found:
            f.seek(at + 100)
            f.write(bytes([page[100] ^ 1]))
        os.fsync(f.fileno())
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3\n")
    with open(path, "rb") as f:
        f.seek(size // 2 & ~4095)
        assert f.read(4096) != page, "the kernel still has the page cached"


def check_beneath(house, image, key, good):
    damage_image(house, image)
    try:
        open_model(house, "--no-build", "--verify", "full")
        raise AssertionError("a client that checks every byte accepted the artifact")
    except Failed as e:
        assert e.status == EX_DATAERR, e
    assert open_model(house, "--strict")["key"] == key  # the daemon notices, rebuilds, serves the good one
    assert file_digest(house) == good
    damage_image(house, image)
    assert house.status_of("verify") == EX_DATAERR
    house.until("it is rebuilt", lambda: [a for a in house.ctl("ls")["artifacts"] if a["key"] == key])
    assert file_digest(house) == good


tap.case("a byte of an object, through the file system: noticed at open, rebuilt", in_house(object_through_the_file_system))
tap.case("a byte of an object: verify exits with 65, rebuilt", in_house(object_seen_by_verify))
tap.case("a byte of each table: noticed at open, rebuilt", in_house(every_small_object))
tap.case("a byte of a manifest, daemon stopped: not served, rebuilt", in_house(manifest))
tap.case("a byte of a manifest under the running daemon: verify exits with 65, rebuilt", in_house(manifest_under_the_running_daemon))
tap.case("an object cut short, or zeroed: noticed at open, rebuilt", in_house(cut_and_zeroed))
tap.case("a byte of the key file: signing stops, no new key by itself", in_house(key_file))
if os.geteuid() == 0 and shutil.which("mkfs.ext4") and os.path.exists("/dev/loop-control"):
    tap.case("a byte beneath the file system: full client check, strict open and verify notice it", beneath_the_file_system)
else:
    tap.left_out("a byte beneath the file system", "needs root, mkfs.ext4 and loop devices")
tap.end()
