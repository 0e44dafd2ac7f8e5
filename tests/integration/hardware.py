#!/usr/bin/env python3
"""Hardware that changes below a running daemon, and between two runs of it.

usage: hardware.py ROOT DAEMON WORKER QUANTCTL OPEN_LOOP [--long [AARCH64_BUILD]]
--long: a model of 128 MiB, and five times there and back; and CPUs that are others for real, to whom qemu-user is one: an
aarch64 build of quantd, and this one under qemu-x86_64.

A client opens the same model again and again with layout auto and multiplies with what it is served. It must never fail,
never get another product, be served the portable artifact at once and the one packed for the CPU later; the old one goes.
"""
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import typing

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import big_model
import tap
from house import House

ROOT, DAEMON, WORKER, QUANTCTL, OPEN_LOOP = sys.argv[1:6]
LONG = "--long" in sys.argv
AARCH64 = sys.argv[7] if len(sys.argv) > 7 else None
MODEL = os.path.join(ROOT, "models", "tiny-kjv.gguf")
PAUSE_US = 1000
# What [daemon] cpu takes away, step by step; on a CPU that has none of it a step changes nothing.
STEPS = ("-avx512vnni,-i8mm", "-avx512,-dotprod", "scalar", "")


def config(cpu, more=""):
    return f"{more}\n[daemon]\ncpu = {cpu}\nlog_level = debug\n"


def set_cpu(house, cpu, more=""):
    house.configure(config(cpu, more))
    house.process.send_signal(signal.SIGHUP)


def native(house):
    return house.ctl("hw")["layout"]


def layouts(house, scheme="q8_0"):
    return sorted(a["layout"] for a in house.ctl("ls")["artifacts"] if a["scheme"] == scheme)


def count_log(house, *words):
    return sum(all(w in line for w in words) for line in house.log().splitlines())


class Loop:
    """The client; .served is what it was served so far, in order."""

    def __init__(self, house, command=(OPEN_LOOP,), scheme="q8_0"):
        self.out = open(os.path.join(house.folder, "loop"), "w+")
        path = house.path("run", "quantd", "quantd.sock")
        self.process = subprocess.Popen([*command, path, "model", scheme, "auto", str(PAUSE_US)], stdout=self.out,
                                        stderr=subprocess.STDOUT, env=house.env)

    def lines(self):
        with open(self.out.name) as f:
            return f.read().splitlines()

    @property
    def served(self):
        return [line.split()[0] for line in self.lines()]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        last = self.lines()[-1]
        assert status == 0 and " failed=0 other=0" in last, self.lines()
        return int(last.split()[0].split("=")[1])


@contextlib.contextmanager
def house_with_model(cpu="", more="", mib=0):
    with House(DAEMON, WORKER, QUANTCTL, more=config(cpu, more)) as house:
        if mib:
            big_model.write(house.path("models", "model.gguf"), mib)
        else:
            house.add(MODEL, "model.gguf")
        house.start()
        house.until_ready("model")
        yield house


def until_served(house, loop, layout, after=0):
    """The client is served @layout, at last, and nothing of another packed layout is left; returns what came before."""
    house.until(f"{layout} is served", lambda: len(loop.served) > after and loop.served[-1] == layout, 120)
    left = sorted({"portable", layout})
    house.until(f"only {left} are left", lambda: layouts(house) == left, 60)
    return loop.served[after:]


def there_and_back():
    with house_with_model(mib=128 if LONG else 0) as house:
        loop = Loop(house)
        before, path = native(house), [native(house)]
        until_served(house, loop, before)
        for cpu in STEPS * (5 if LONG else 1):
            n = len(loop.served)
            set_cpu(house, cpu)
            house.until("the CPU is another", lambda: count_log(house, "daemon: ready") == len(path) + 1)
            now = native(house)
            path.append(now)
            if now == before:
                continue
            way = until_served(house, loop, now, n)
            assert way in ([now], ["portable", now]), (before, now, way)  # at once: nothing else in between
            before = now
        n_opens = loop.stop()
        print(f"# {n_opens} opens, 0 failed, through {' '.join(path)}")
        assert house.stop() == 0


def what_is_mapped_stays():
    with house_with_model() as house:
        full = native(house)
        house.ctl("open", "model", "--scheme", "q8_0", "--layout", "native")
        with subprocess.Popen([QUANTCTL, "open", "model", "--scheme", "q8_0", "--layout", "native", "--", "sleep", "600"],
                              env=house.env) as holder:
            try:
                house.until("it is held", lambda: holder_has_it(holder, house))
                set_cpu(house, STEPS[0])
                house.until("the CPU is another", lambda: native(house) != full)
                less = native(house)
                house.until("it is packed for the other CPU", lambda: less in layouts(house))
                house.until("the old one is superseded", lambda: count_log(house, "artifact superseded", f"layout={full}"))
                assert full in layouts(house), "it is mapped, and gone"
                n_jobs = count_log(house, "job: running")
                set_cpu(house, "")
                house.until("the CPU is back", lambda: native(house) == full)
                opened = house.ctl("open", "model", "--scheme", "q8_0", "--layout", "auto")
                assert opened["layout"] == full, opened
                house.until("the one of the meantime goes", lambda: less not in layouts(house))
                assert count_log(house, "job: running") == n_jobs, "it was packed again, and was there"
                set_cpu(house, STEPS[0])
                house.until("the old one is superseded again", lambda: count_log(house, "artifact superseded", f"layout={full}") == 2)
                assert full in layouts(house)
            finally:
                holder.kill()
        house.until("it goes with its last user", lambda: full not in layouts(house))
        assert house.stop() == 0


def holder_has_it(holder, house):
    folder = f"/proc/{holder.pid}/fd"
    return any(house.path("cache") in os.readlink(os.path.join(folder, fd)) for fd in os.listdir(folder))


def events():
    with house_with_model() as house:
        full = native(house)
        house.ctl("open", "model", "--scheme", "q8_0", "--layout", "native")
        seen = os.path.join(house.folder, "seen")
        with open(seen, "w") as out, subprocess.Popen([QUANTCTL, "watch", "--json"], env=house.env, stdout=out) as watch:
            try:
                schemes = iter(("f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k_m", "q6_k"))  # each is an event
                house.until("it listens", lambda: house.ctl("open", "model", "--scheme", next(schemes)) and os.path.getsize(seen))
                set_cpu(house, STEPS[0])
                house.until("the old one is told to be gone", lambda: '"evicted"' in open(seen).read())
            finally:
                watch.kill()
        with open(seen) as f:
            text = f.read()
        text = text[text.index('"hardware_changed"'):]
        less = native(house)
        where = [text.index(word) for word in ('"change":"ready","', '"change":"superseded","', '"change":"evicted","')]
        assert where == sorted(where), text
        for change, layout in (("ready", less), ("superseded", full), ("evicted", full)):
            assert any(f'"change":"{change}"' in line and f'"layout":"{layout}"' in line for line in text.splitlines()), (change, text)
        assert house.stop() == 0


def restarted_on_another_cpu():
    """Nobody asks: what was wanted is made, what is of no use goes."""
    with house_with_model() as house:
        full = native(house)
        house.ctl("open", "model", "--scheme", "q8_0", "--layout", "native")
        assert house.stop() == 0
        house.env["QUANTD_CPU"] = STEPS[0]
        house.start()
        less = native(house)
        house.until("it is packed for the other CPU", lambda: layouts(house) == sorted({"portable", less}), 30)
        with open(house.path("state", "quantd", "hardware")) as f:
            house.until("no layout is to go any more", lambda: "superseded" not in open(f.name).read())
        assert count_log(house, "artifact evicted", f"layout={full}") == 1
        assert house.stop() == 0


def killed_in_the_middle():
    """The layout that is to go can still be used, so only what was written down tells that it is to go."""
    with house_with_model(STEPS[0]) as house:
        less = native(house)
        house.ctl("open", "model", "--scheme", "q8_0", "--layout", "native")
        set_cpu(house, "")
        house.until("the CPU is another", lambda: count_log(house, "hardware: changed"))
        house.kill()
        house.start()
        full = native(house)
        house.until("it is packed for the other CPU", lambda: layouts(house) == ["portable", full], 30)
        assert less != full and house.stop() == 0


def not_used_lately():
    with house_with_model(more="[cache]\nrepack = 0") as house:
        full = native(house)
        house.ctl("open", "model", "--scheme", "q8_0", "--layout", "native")
        n_jobs = count_log(house, "job: running")
        set_cpu(house, STEPS[0], "[cache]\nrepack = 0")
        house.until("it goes", lambda: full not in layouts(house))
        assert layouts(house) == ["portable"] and count_log(house, "job: running") == n_jobs
        assert house.stop() == 0


def pinned():
    with house_with_model() as house:
        full = native(house)
        house.ctl("open", "model", "--scheme", "q8_0", "--layout", "native")
        house.ctl("pin", f"model:q8_0:{full}")
        set_cpu(house, STEPS[0])
        house.until("it is packed for the other CPU", lambda: len(layouts(house)) == 3)
        assert full in layouts(house) and native(house) in layouts(house)
        opened = house.ctl("open", "model", "--scheme", "q8_0", "--layout", "auto")
        assert opened["layout"] == native(house), "one that this CPU cannot use was served"
        assert house.stop() == 0


def rescanned():
    """As after a resume: the daemon looks when it is told to, and an unchanged machine changes nothing."""
    with House(DAEMON, WORKER, QUANTCTL) as house:
        profile = house.path("machine.hw")
        house.add(MODEL, "model.gguf")
        house.start()
        house.until_ready("model")
        full = native(house)
        house.ctl("open", "model", "--scheme", "q8_0", "--layout", "native")
        house.ctl("rescan")
        assert count_log(house, "hardware: changed") == 0
        house.ctl("hw", "--save", profile)
        assert house.stop() == 0
        house.start(options=("--user", "--hardware", profile))
        with open(profile) as f:
            text = f.read()
        for name in ("+avx512vnni", "+i8mm"):
            text = text.replace(name, "")
        with open(profile, "w") as f:
            f.write(text)
        house.ctl("rescan")
        house.until("it is packed for the other CPU", lambda: layouts(house) == ["portable", native(house)])
        assert native(house) != full and house.stop() == 0


# ---- CPUs that are others for real ----

BUILD = os.path.dirname(os.path.dirname(os.path.abspath(DAEMON)))


class Machine(typing.NamedTuple):
    """A build of quantd on a CPU of an emulator's; "" is the one here."""
    build: str
    emulator: str
    cpu: str
    native: str
    rank: int         # of the client: the least of them runs on all
    filter: str = ""  # [daemon] cpu, for a daemon that the emulator does not run

    def words(self):
        return (shutil.which(self.emulator), "-cpu", self.cpu) if self.emulator else ()

    def program(self, *path):
        return (*self.words(), os.path.join(self.build, *path))

    def worker(self, folder):
        path = os.path.join(folder, "worker." + self.cpu)
        with open(path, "w") as f:
            f.write(f'#!/bin/sh\nexec {" ".join(self.program("daemon", "worker", "quantd-worker"))} "$@"\n')
        os.chmod(path, 0o755)
        return path


def x86(cpu, native, rank, features):
    """qemu-x86_64 7.2 enters signal handlers with a stack that is not aligned: it runs workers and clients, not the daemon."""
    return Machine(BUILD, "qemu-x86_64", cpu, native, rank, features)


def aarch64(cpu, native, rank):
    return Machine(AARCH64, "qemu-aarch64", cpu, native, rank)


class Held:
    """The socket, held over restarts as systemd does: no client is refused."""

    def __init__(self, house):
        path = house.path("run", "quantd", "quantd.sock")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(path)
        self.socket.listen(64)

    def start(self, house, on):
        house.daemon, house.worker = os.path.join(on.build, "daemon", "quantd"), on.worker(house.folder)
        house.configure("[jobs]\nsandbox = off\nmemory = 0\n" + config(on.filter))
        give = ["sh", "-c", f'exec 3<&{self.socket.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "give"]
        house.start(launcher=(*give, *(() if on.filter else on.words())), pass_fds=(self.socket.fileno(),))


def moved(*machines):
    """The cache goes from one machine to the next, below a client that never stops."""
    with House(DAEMON, WORKER, QUANTCTL) as house:
        house.add(MODEL, "model.gguf")
        held = Held(house)
        held.start(house, machines[0])
        house.until_ready("model")
        loop = Loop(house, min(machines, key=lambda m: m.rank).program("tests", "tools", "open_loop"))
        for before, m in zip((None, *machines), machines):
            n = len(loop.served)
            if before:
                assert house.stop() == 0
                held.start(house, m)
            assert native(house) == m.native, house.ctl("hw")
            if before and before.native == m.native:
                continue
            way = until_served(house, loop, m.native, n)
            assert way in ([m.native], ["portable", m.native]), (m, way)
        n_opens = loop.stop()
        print(f"# {n_opens} opens, 0 failed, over {', '.join(f'{m.cpu} ({m.native})' for m in machines)}")
        assert house.stop() == 0


def emulated(name, *machines):
    missing = [m.emulator for m in machines if m.emulator and not shutil.which(m.emulator)]
    if missing or None in (m.build for m in machines):
        tap.left_out(name, f"no {missing[0]}" if missing else "no aarch64 build")
    else:
        tap.case(name, lambda: moved(*machines))


def emulated_cases():
    if os.uname().machine != "x86_64":
        return
    here = Machine(BUILD, "", "this CPU", FULL, 2)
    emulated("aarch64: from -cpu max to cortex-a53, cortex-a76, and back",
             *(aarch64(cpu, layout, rank) for cpu, layout, rank in (("max", "r4k8p128", 1), ("cortex-a53", "r4k4p128", 0),
                                                                    ("cortex-a76", "r4k4p128", 0), ("max", "r4k8p128", 1))))
    if FULL != "portable":
        emulated("x86-64: from this CPU to Haswell, to Nehalem, and back", here, x86("Haswell", "r8k4p128", 1, "avx2,fma,f16c"),
                 x86("Nehalem", "portable", 0, "scalar"), here)
    emulated("a cache that moves from x86-64 to aarch64 and back", here, aarch64("max", "r4k8p128", 3), here)


with House(DAEMON, WORKER, QUANTCTL, more=config("")) as probe:
    probe.start()
    FULL = native(probe)
    probe.configure(config(STEPS[0]))
    probe.process.send_signal(signal.SIGHUP)
    LESS = probe.until("the configuration is read", lambda: count_log(probe, "daemon: ready") == 2 and native(probe))

tap.case("features taken away and given back: a client in an open loop never fails", there_and_back)
if FULL == LESS:
    tap.left_out("the other cases", f"{FULL} is native with and without VNNI or i8mm")
else:
    tap.case("what a client has mapped: stays, is served when the CPU is back, goes with its last user", what_is_mapped_stays)
    tap.case("a change: subscribers hear of it, of the new artifact, of the old one, in that order", events)
    tap.case("a start on another CPU: what was wanted is packed unasked, what is of no use goes", restarted_on_another_cpu)
    tap.case("a daemon killed behind the change: the next one goes on", killed_in_the_middle)
    tap.case("what was not used lately: goes, and is not made anew", not_used_lately)
    tap.case("what is pinned: stays, and is not served where it cannot be used", pinned)
    tap.case("rescan: sees another machine, and nothing where there is none", rescanned)
if LONG:
    emulated_cases()
tap.end()
