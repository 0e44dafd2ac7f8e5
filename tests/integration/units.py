#!/usr/bin/env python3
"""The units as a distribution would install them: clean, tight, and the daemon works under what they forbid.

usage: units.py ROOT DAEMON WORKER QUANTCTL UNDER_UNIT UNIT_FOLDER
"""
import os
import re
import shutil
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import tap
from house import SANITIZED, House

ROOT, DAEMON, WORKER, QUANTCTL, UNDER_UNIT, UNITS = (os.path.abspath(p) for p in sys.argv[1:7])
MODEL = os.path.join(ROOT, "models", "tiny-kjv.gguf")
DAEMON_UID, ALICE, BOB = 61001, 61002, 61003
EXPOSURE_MAX = 0.7


def analyze(*args):
    done = subprocess.run(["systemd-analyze", "--no-pager", *args], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def exposure():
    status, text = analyze("security", "--offline=yes", os.path.join(UNITS, "quantd.service"))
    found = re.search(r"Overall exposure level for quantd.service: ([0-9.]+)", text)
    assert found, text
    assert float(found.group(1)) <= EXPOSURE_MAX, text


def units_are_clean():
    """Programs are looked for by their installed path: a copy of the units names those of this build."""
    with House(DAEMON, WORKER, QUANTCTL) as house:
        for name in ("quantd.service", "quantd.socket", "quantd-rescan.service"):
            with open(os.path.join(UNITS, name)) as f:
                text = re.sub(r"(ExecStart=)\S+/(quantd|quantctl)\b", lambda m: m.group(1) + {"quantd": DAEMON, "quantctl": QUANTCTL}[m.group(2)], f.read())
            text = re.sub(r"\nDocumentation=.*", "", text)  # the pages are not installed here
            with open(house.path(name), "w") as f:
                f.write(text)
        status, text = analyze("verify", "--man=no", *(house.path(n) for n in ("quantd.service", "quantd.socket", "quantd-rescan.service")))
        ours = [line for line in text.splitlines() if "quantd" in line]
        assert status == 0 and not ours, text


class SystemHouse(House):
    """The system daemon: directories from the unit's environment, its own uid, a socket for everybody."""

    def __enter__(self):
        super().__enter__()
        os.chmod(self.folder, 0o755)
        self.install()
        for name in ("run", "state", "cache", "config", "models"):
            os.makedirs(self.path(name), exist_ok=True)
        for name, mode in (("run", 0o755), ("state", 0o700), ("cache", 0o700)):
            os.chown(self.path(name), DAEMON_UID, DAEMON_UID)
            os.chmod(self.path(name), mode)
        for name in [n for n in self.env if n.startswith("XDG_")]:
            del self.env[name]
        self.env.update(STATE_DIRECTORY=self.path("state"), CACHE_DIRECTORY=self.path("cache"), RUNTIME_DIRECTORY=self.path("run"),
                        QUANTD_SOCKET=self.path("run", "quantd.sock"))
        return self

    def install(self):
        """The programs where every user may start them: a build folder may be closed to others."""
        os.makedirs(self.path("bin"), exist_ok=True)
        library = os.path.join(os.path.dirname(QUANTCTL), "..", "libquantd.so.0")
        self.daemon, self.worker, self.quantctl, _ = (shutil.copy(p, self.path("bin")) for p in (DAEMON, WORKER, QUANTCTL, library))
        self.env["LD_LIBRARY_PATH"] = self.path("bin")
        self.configure()

    def start_system(self):
        return self.start(launcher=[UNDER_UNIT, os.path.join(UNITS, "quantd.service"), "--uid", str(DAEMON_UID), "--"],
                          options=("--config", self.path("config", "quantd", "quantd.conf")))

    def ctl_as(self, uid, *args):
        """(exit code, output, errors) of quantctl run by another user."""
        done = subprocess.run([self.quantctl, *args], env={**self.env, "HOME": "/nonexistent"}, capture_output=True, text=True, timeout=120,
                              user=uid, group=uid, extra_groups=[])
        return done.returncode, done.stdout, done.stderr


def in_system(check):
    def run():
        with SystemHouse(DAEMON, WORKER, QUANTCTL) as house:
            for name, uid, mode in (("open", 0, 0o644), ("alice", ALICE, 0o640)):
                path = house.add(MODEL, name + ".gguf")
                os.chown(path, uid, DAEMON_UID)
                os.chmod(path, mode)
            house.start_system()
            for name in ("open", "alice"):
                house.until_ready(name)
            check(house)
            assert house.stop() == 0, house.log()
    return run


def worker_runs(house):
    status = house.ctl("hw")
    assert "seccomp" in status["sandbox"], status
    assert house.ctl("open", "open", "--scheme", "q4_0")["key"]
    with open(f"/proc/{house.process.pid}/status") as f:
        text = f.read()
    assert "CapEff:\t0000000000000000" in text and "NoNewPrivs:\t1" in text, text


def uids_are_told_apart(house):
    """Alice's file is hers (and the daemon's group's): she may open it, Bob may not and does not see it."""
    code, out, err = house.ctl_as(ALICE, "open", "alice", "--scheme", "q8_0")
    assert code == 0, err
    code, out, err = house.ctl_as(BOB, "open", "alice", "--scheme", "q8_0")
    assert code in (66, 77), (code, err)
    assert '"alice"' not in house.ctl_as(BOB, "models", "--json")[1]
    assert '"alice"' in house.ctl_as(ALICE, "models", "--json")[1]
    assert '"alice"' not in house.ctl_as(BOB, "ls", "--json")[1]
    code, out, err = house.ctl_as(BOB, "open", "open", "--scheme", "q8_0")
    assert code == 0, err
    assert house.ctl_as(BOB, "rm", "open:q8_0")[0] == 77
    assert house.ctl_as(BOB, "prune", "--all")[0] == 77


def name_of_a_private_model_taken(house):
    """Whoever puts a model of his own where a private one was does not see what was made of that."""
    house.ctl("open", "alice", "--scheme", "q8_0")
    with open(MODEL, "rb") as f:
        other = bytearray(f.read())
    other[-2] ^= 1
    with open(house.path("other"), "wb") as f:
        f.write(other)
    os.remove(house.path("models", "alice.gguf"))
    path = house.add(house.path("other"), "alice.gguf")
    os.chmod(path, 0o644)
    house.until("Bob sees the new model", lambda: '"alice"' in house.ctl_as(BOB, "models", "--json")[1])
    house.until_ready("alice")
    assert '"alice"' not in house.ctl_as(BOB, "ls", "--json")[1]
    assert house.ctl_as(BOB, "show", "alice:q8_0")[0] == 66
    code, _, err = house.ctl_as(BOB, "open", "alice", "--scheme", "q4_0")
    assert code == 0, err
    assert '"q4_0"' in house.ctl_as(BOB, "ls", "--json")[1]


# Run by the client with the served descriptor: each way must be refused.
SIX_WAYS = r"""
import ctypes, mmap, os, sys
path = sys.argv[1]
fd = int(path.rsplit("/", 1)[1])
libc = ctypes.CDLL(None, use_errno=True)
def again_for_writing(): os.close(os.open(path, os.O_RDWR))
def again_truncating(): os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
def change_mode(): os.fchmod(fd, 0o666)
def cut(): os.ftruncate(fd, 0)
def write(): os.pwrite(fd, b"x", 0)
def map_for_writing(): mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
def make_map_writable():
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(4096), mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
    if libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(4096), mmap.PROT_READ | mmap.PROT_WRITE): raise OSError(ctypes.get_errno(), "mprotect")
def link_elsewhere():
    if libc.linkat(fd, b"", -100, b"/tmp/quantd-stolen", 0x1000) and libc.linkat(-100, path.encode(), -100, b"/tmp/quantd-stolen", 0x400): raise OSError(ctypes.get_errno(), "linkat")
def punch(): os.posix_fallocate(fd, 0, 1 << 30)
assert os.getuid() != 0
assert len(os.read(os.open(path, os.O_RDONLY), 4)) == 4
ways = [again_for_writing, again_truncating, change_mode, cut, write, map_for_writing, make_map_writable, link_elsewhere, punch]
for way in ways:
    try: way()
    except (OSError, PermissionError, ValueError): continue
    sys.exit(f"{way.__name__} was not refused")
print(len(ways), "ways refused")
"""


def served_is_read_only(house):
    before = house.ctl("open", "open", "--scheme", "q8_0")["digest"]
    code, out, err = house.ctl_as(BOB, "open", "open", "--scheme", "q8_0", "--", "/usr/bin/python3", "-c", SIX_WAYS, "{}")
    assert code == 0 and "ways refused" in out, (code, out, err)
    assert house.ctl("verify")["problems"] == []
    assert house.ctl("open", "open", "--scheme", "q8_0")["digest"] == before


def own_file_by_descriptor(house):
    """A file that the daemon has no right to: its user passes it open."""
    path = house.path("bobs.gguf")
    shutil.copyfile(MODEL, path)
    os.chown(path, BOB, BOB)
    os.chmod(path, 0o600)
    code, out, err = house.ctl_as(BOB, "open", "--file", path, "--scheme", "q4_0")
    assert code == 0, err
    code, out, err = house.ctl_as(ALICE, "open", "--file", path, "--scheme", "q4_0")
    assert code == 77, (code, err)


if shutil.which("systemd-analyze"):
    tap.case("systemd-analyze verify has nothing to say", units_are_clean)
    tap.case(f"systemd-analyze security: exposure at most {EXPOSURE_MAX}", exposure)
    if SANITIZED:
        tap.left_out("the daemon under the unit's filters", "a sanitizer needs calls that they forbid")
    elif os.geteuid() == 0:
        tap.case("a worker quantizes under the unit's real filters", in_system(worker_runs))
        tap.case("two uids are told apart under the unit", in_system(uids_are_told_apart))
        tap.case("the name of a private model, taken by another, tells nothing of it", in_system(name_of_a_private_model_taken))
        tap.case("a client of another uid cannot write to what it is served, by any of nine ways", in_system(served_is_read_only))
        tap.case("a user passes a file that the daemon may not read", in_system(own_file_by_descriptor))
    else:
        tap.left_out("the daemon under the unit's filters", "needs root")
else:
    tap.left_out("the units", "systemd-analyze is missing")
tap.end()
