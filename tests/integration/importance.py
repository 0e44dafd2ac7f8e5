#!/usr/bin/env python3
"""Importance matrices through the daemon: part of the key by their content, and never trusted unseen.

usage: importance.py ROOT DAEMON WORKER QUANTCTL
"""
import mmap
import os
import shutil
import subprocess
import sys
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import gguf
import imatrix
import tap
from house import Failed, House

ROOT, *PROGRAMS = sys.argv[1:5]
MODEL = os.path.join(ROOT, "models", "tiny-kjv.gguf")
EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_TEMPFAIL = 64, 65, 66, 75


def opened(house, matrix, *more, scheme="q4_0"):
    return house.ctl("open", "tiny", "--scheme", scheme, *(["--imatrix", matrix] if matrix else []), *more)


def refused(status, words, call):
    try:
        answer = call()
    except Failed as e:
        if e.status != status or any(w not in str(e) for w in words):
            raise AssertionError(f"exit {e.status}, not {status} with {words}: {e}")
        return
    raise AssertionError(f"not refused: {answer}")


def is_found_by_content(house):
    """Another name, another folder, another process, another daemon: the same key, from the cache."""
    key = opened(house, house.path("a.imatrix"))["key"]
    shutil.copy(house.path("a.imatrix"), house.path("run", "other-name"))
    assert opened(house, house.path("run", "other-name"), "--no-build")["key"] == key
    assert opened(house, house.path("a.imatrix"), "--no-build", "--strict")["key"] == key
    house.stop()
    house.start()
    house.until_ready("tiny")
    assert opened(house, house.path("a.imatrix"), "--no-build")["key"] == key


def other_content_is_another_artifact(house):
    keys = {opened(house, matrix and house.path(matrix))["key"] for matrix in (None, "a.imatrix", "b.imatrix", "a.dat")}
    assert len(keys) == 4, keys
    refused(EX_NOINPUT, ["not in the cache"], lambda: opened(house, house.path("b.imatrix"), "--no-build", scheme="q8_0"))


def by_hand_and_by_daemon_are_one_file(house):
    opened(house, house.path("a.imatrix"), "-o", house.path("daemon.gguf"))
    subprocess.run([house.quantctl, "quantize", MODEL, "-o", house.path("hand.gguf"), "--scheme", "q4_0", "--imatrix", house.path("a.imatrix"), "--quiet"],
                   env=house.env, check=True, capture_output=True)
    with open(house.path("daemon.gguf"), "rb") as a, open(house.path("hand.gguf"), "rb") as b:
        assert a.read() == b.read()
    facts, _ = gguf.read(house.path("daemon.gguf"))
    assert facts["quantd.recipe"].endswith(facts["quantd.imatrix"]), facts


def a_file_of_ones_own_may_have_one(house):
    artifact = house.ctl("open", "--file", MODEL, "--scheme", "q4_0", "--imatrix", house.path("a.imatrix"))
    assert " imatrix=" in artifact["recipe"], artifact


def plan_tells_the_recipe(house):
    plan = house.ctl("plan", "tiny", "--scheme", "q4_0", "--imatrix", house.path("a.imatrix"))
    assert plan["recipe"] == opened(house, house.path("a.imatrix"))["recipe"], plan
    assert " imatrix=" not in house.ctl("plan", "tiny", "--scheme", "q4_0")["recipe"]


def many_that_ask_make_one_job(house):
    matrix = house.path("b.imatrix")
    asking = [subprocess.Popen([house.quantctl, "open", "tiny", "--scheme", "f16", "--imatrix", matrix, "--json"], env=house.env, stdout=subprocess.PIPE)
              for _ in range(8)]
    answers = {p.communicate(timeout=60)[0] for p in asking}
    assert len(answers) == 1 and not any(p.returncode for p in asking), answers
    assert house.log().count("job: ready") == 1, house.log()


def what_does_not_fit_is_refused(house):
    imatrix.write_dat(house.path("wrong.dat"), {"blk.0.attn_q.weight": ([1.0] * 255, [1])}, "text", 1)
    imatrix.write_dat(house.path("strange.dat"), {"model.layers.0.weight": ([1.0] * 256, [1])}, "text", 1)
    for verb in ("open", "plan"):
        refused(EX_USAGE, ["'blk.0.attn_q.weight' has 256 columns", "255 values", "llama-imatrix"],
                lambda: house.ctl(verb, "tiny", "--scheme", "q4_0", "--imatrix", house.path("wrong.dat")))
        refused(EX_USAGE, ["fits no tensor", "model.layers.0.weight"],
                lambda: house.ctl(verb, "tiny", "--scheme", "q4_0", "--imatrix", house.path("strange.dat")))
        refused(EX_DATAERR, ["no importance matrix"], lambda: house.ctl(verb, "tiny", "--scheme", "q4_0", "--imatrix", MODEL))
        refused(EX_NOINPUT, ["none.imatrix"], lambda: house.ctl(verb, "tiny", "--scheme", "q4_0", "--imatrix", house.path("none.imatrix")))


def beside_a_model_it_is_not_used(house):
    shutil.copy(house.path("a.imatrix"), house.path("models", "tiny.gguf.imatrix"))
    assert " imatrix=" not in opened(house, None)["recipe"]


def damage_waits_for_who_has_the_matrix(house):
    key = opened(house, house.path("a.imatrix"))["key"]
    path = house.objects()[0][0]
    os.chmod(path, 0o644)
    with open(path, "r+b") as f:
        f.seek(500000)
        f.write(b"\x55\xaa\x55")
    assert house.status_of("verify") == EX_DATAERR
    assert "not built again" in house.log() and "importance matrix" in house.log(), house.log()
    refused(EX_NOINPUT, ["not in the cache"], lambda: opened(house, house.path("a.imatrix"), "--no-build"))
    assert opened(house, house.path("a.imatrix"))["key"] == key


def a_change_that_no_stamp_shows_is_seen(house):
    """Through a mapping whose page is dirty already: the digest is remembered, the content is another."""
    path = house.path("a.imatrix")
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as view:
        view[-4:] = view[-4:]  # from here on the page is dirty
        before = os.stat(path)
        time.sleep(0.2)  # a younger file is not remembered
        opened(house, path)
        view[-256:-252] = b"\0\0\0\x40"
        after = os.stat(path)
        if (before.st_mtime_ns, before.st_ctime_ns) != (after.st_mtime_ns, after.st_ctime_ns):
            tap.left_out("importance: a change that no stamp shows", "this file system shows it")
            return
        refused(EX_TEMPFAIL, ["was changed since it was asked for"],
                lambda: house.ctl("plan", "tiny", "--scheme", "q8_0", "--imatrix", path))
        refused(EX_TEMPFAIL, ["was changed since it was asked for"], lambda: opened(house, path, scheme="q8_0"))


def in_house(check):
    def run():
        with House(*PROGRAMS) as house:
            house.add(MODEL, "tiny.gguf")
            house.start()
            house.until_ready("tiny")
            imatrix.make(MODEL, house.path("a.imatrix"), seed=5)
            imatrix.make(MODEL, house.path("b.imatrix"), seed=6)
            imatrix.make(MODEL, house.path("a.dat"), dat=True, seed=5)
            check(house)
            assert house.stop() == 0, house.log()
    return run


for test in (is_found_by_content, other_content_is_another_artifact, by_hand_and_by_daemon_are_one_file, a_file_of_ones_own_may_have_one, plan_tells_the_recipe,
             many_that_ask_make_one_job, what_does_not_fit_is_refused, beside_a_model_it_is_not_used, damage_waits_for_who_has_the_matrix,
             a_change_that_no_stamp_shows_is_seen):
    tap.case(f"importance: {test.__name__.replace('_', ' ')}", in_house(test))
tap.end()
