#!/usr/bin/env python3
"""quantd-worker --direct as a program: exit statuses, what it says, and what it leaves when it fails or is killed.

usage: direct.py ROOT WORKER
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import gguf
import imatrix
import tap

ROOT, WORKER = (os.path.abspath(p) for p in sys.argv[1:3])
MODEL = os.path.join(ROOT, "models", "tiny-kjv.gguf")
EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_CANTCREAT, EX_TEMPFAIL = 64, 65, 66, 73, 75


def run(*arguments, **more):
    return subprocess.run([WORKER, "--direct", *arguments], capture_output=True, text=True, **more)


def expect(done, status, *words):
    said = done.stdout + done.stderr
    if done.returncode != status:
        raise AssertionError(f"status {done.returncode}, not {status}: {said}")
    for word in words:
        if word not in said:
            raise AssertionError(f"'{word}' is not in: {said}")


def only(folder, *names):
    if sorted(os.listdir(folder)) != sorted(names):
        raise AssertionError(f"left: {os.listdir(folder)}")


def makes_a_file(folder):
    expect(run(MODEL, f"{folder}/a.gguf", "--scheme", "q8_0"), 0, "a.gguf: q8_0", "dB")
    only(folder, "a.gguf")
    facts, tensors = gguf.read(f"{folder}/a.gguf")
    if facts["quantd.scheme"] != "q8_0" or facts["general.alignment"] != 4096 or not tensors:
        raise AssertionError(facts)


def keeps_what_is_there(folder):
    expect(run(MODEL, f"{folder}/a.gguf", "--scheme", "q4_0"), EX_CANTCREAT, "is there already", "--force")
    if gguf.read(f"{folder}/a.gguf")[0]["quantd.scheme"] != "q8_0":
        raise AssertionError("replaced without --force")
    expect(run(MODEL, f"{folder}/a.gguf", "--scheme", "q4_0", "--force"), 0)
    if gguf.read(f"{folder}/a.gguf")[0]["quantd.scheme"] != "q4_0":
        raise AssertionError("not replaced with --force")
    only(folder, "a.gguf")


def says_json(folder):
    done = run(MODEL, f"{folder}/j.gguf", "--scheme", "auto", "--json", "--quiet")
    expect(done, 0)
    told = json.loads(done.stdout)
    if told["scheme"] not in ("q8_0", "q4_0") or told["bytes"] != os.path.getsize(f"{folder}/j.gguf") or "auto" not in told["why"]:
        raise AssertionError(told)
    os.unlink(f"{folder}/j.gguf")


def dry_run_writes_nothing(folder):
    before = os.listdir(folder)
    expect(run(MODEL, "--dry-run", "--scheme", "q4_0", "--pure"), 0, "token_embd.weight", "-> q4_0", "scheme=q4_0 pure=1")
    only(folder, *before)


def says_what_is_wrong(folder):
    expect(run(MODEL, f"{folder}/x", "--scheme", "q4_O"), EX_USAGE, "did you mean 'q4_0'")
    expect(run(MODEL, f"{folder}/x", "--thread-count", "1"), EX_USAGE, "--thread-count", "--help")
    expect(run(MODEL, f"{folder}/x", "--threads", "0"), EX_USAGE, "number of threads")
    expect(run(MODEL), EX_USAGE, "where to")
    expect(run(f"{folder}/none.gguf", f"{folder}/x"), EX_NOINPUT, "none.gguf")
    expect(run(MODEL, f"{folder}/no/x", "--quiet"), EX_NOINPUT, "no such file or directory".capitalize())
    expect(run(MODEL, f"{folder}/x", "--max-memory", "1M", "--quiet"), EX_DATAERR, "--max-memory")
    expect(run(os.path.join(ROOT, "meson.build"), f"{folder}/x"), EX_DATAERR)
    if os.path.exists(f"{folder}/x"):
        raise AssertionError("a failed run left its output")


def takes_choices_of_types(folder):
    plan = json.loads(run(MODEL, "--dry-run", "--json", "--scheme", "q4_k", "--tensor", r"blk\.0\.ffn_down=q8_0", "--keep", r"blk\.0\.",
                          "--tensor", "ffn=Q5_0", "--embedding-type", "q8_0").stdout)
    types = {t["name"]: t["to"] for t in plan["tensors"]}
    if (plan["scheme"], types["blk.0.ffn_down.weight"], types["blk.0.attn_q.weight"], types["blk.1.ffn_up.weight"],
            types["token_embd.weight"]) != ("q4_k_m", "q8_0", "bf16", "q5_0", "q8_0"):
        raise AssertionError(types)
    expected = r"scheme=q4_k_m pure=0 embedding=q8_0 tensor=blk\.0\.ffn_down=q8_0 keep=blk\.0\. tensor=ffn=q5_0"
    if plan["recipe"] != expected or plan["n_tensors"] != len(types):
        raise AssertionError(plan["recipe"])
    expect(run(MODEL, f"{folder}/c.gguf", "--scheme", "q8_0", "--pure", "--tensor", "ffn=q4_0", "--keep", "attn_q", "--quiet"), 0)
    facts, tensors = gguf.read(f"{folder}/c.gguf")
    if gguf.TYPES[tensors["blk.1.ffn_up.weight"].kind][0] != "q4_0" or "keep=attn_q" not in facts["quantd.recipe"]:
        raise AssertionError(facts["quantd.recipe"])
    os.unlink(f"{folder}/c.gguf")


def says_what_is_wrong_with_a_choice(folder):
    def wrong(status, *words, options):
        expect(run(MODEL, f"{folder}/x", "--scheme", "q4_0", *options), status, *words)
    wrong(EX_USAGE, "names no type", "REGEX=TYPE", options=("--tensor", "ffn"))
    wrong(EX_USAGE, "unknown type 'q8_k'", "q8_0", options=("--tensor", "ffn=q8_k"))
    wrong(EX_USAGE, "pattern '('", options=("--keep", "("))
    wrong(EX_USAGE, "backslash", "[0-9]", options=("--keep", r"blk\.\d+\."))
    wrong(EX_USAGE, "--keep 'atn_q'", "lists the names", options=("--keep", "atn_q"))
    wrong(EX_USAGE, "unknown type", options=("--output-type", "int3"))
    wrong(EX_USAGE, "needs an importance matrix", "--imatrix", options=("--scheme", "q2_k_s"))
    wrong(EX_USAGE, "'--keep' needs a value", options=("--keep",))
    only(folder, "a.gguf") if os.path.exists(f"{folder}/a.gguf") else only(folder)


def refuses_a_second_quantization(folder):
    expect(run(f"{folder}/a.gguf", f"{folder}/x", "--scheme", "q8_0"), EX_DATAERR, "already quantized", "original", "--allow-requantize")
    expect(run(f"{folder}/a.gguf", f"{folder}/again.gguf", "--scheme", "q4_0", "--quiet"), 0)  # the same type again: a copy
    (_, a), (_, b) = gguf.read(f"{folder}/a.gguf"), gguf.read(f"{folder}/again.gguf")
    if a != b:
        raise AssertionError("a copy has other tensors")
    os.unlink(f"{folder}/again.gguf")
    done = run(f"{folder}/a.gguf", f"{folder}/again.gguf", "--scheme", "q8_0", "--quiet", "--allow-requantize")
    expect(done, 0, "quantized again: ", "error of their first time")
    os.unlink(f"{folder}/again.gguf")


def large_model(folder):
    """A sparse f32 GGUF of 4 GB: one tensor of zeros, which takes a while and no disk."""
    path = os.path.join(folder, "large.gguf")
    name, rows, dim = b"zeros.weight", 1 << 18, 4096
    fact = len(b"general.architecture").to_bytes(8, "little") + b"general.architecture" + (8).to_bytes(4, "little") + (5).to_bytes(8, "little") + b"llama"
    entry = len(name).to_bytes(8, "little") + name + (2).to_bytes(4, "little") + dim.to_bytes(8, "little") + rows.to_bytes(8, "little") + bytes(4) + bytes(8)
    head = b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") + (1).to_bytes(8, "little") + fact + entry
    with open(path, "wb") as f:
        f.write(head)
        f.truncate((len(head) + 31) // 32 * 32 + 4 * rows * dim)
    return path


def killed(folder, number, status):
    model = large_model(folder)
    before = os.listdir(folder)
    with subprocess.Popen([WORKER, "--direct", model, f"{folder}/k.gguf", "--scheme", "q4_0", "--quiet"], stderr=subprocess.PIPE, text=True) as p:
        time.sleep(0.2)
        p.send_signal(number)
        said = p.communicate()[1]
    if p.returncode != status:
        raise AssertionError(f"status {p.returncode}: {said}")
    only(folder, *before, ".k.gguf.part", ".k.gguf.journal")  # a long job: for the next process to continue
    os.unlink(f"{folder}/.k.gguf.part")
    os.unlink(f"{folder}/.k.gguf.journal")


def never_replaces_the_model(folder):
    os.symlink(f"{folder}/own.gguf", f"{folder}/link.gguf")
    with open(MODEL, "rb") as model:
        content = model.read()
    with open(f"{folder}/own.gguf", "wb") as own:
        own.write(content)
    for name in ("own.gguf", "link.gguf"):
        expect(run(f"{folder}/own.gguf", f"{folder}/{name}", "--scheme", "q4_0", "--force"), EX_USAGE, "the model itself", "another name")
    with open(f"{folder}/own.gguf", "rb") as own:
        if own.read() != content:
            raise AssertionError("the model was replaced")
    os.unlink(f"{folder}/own.gguf")
    os.unlink(f"{folder}/link.gguf")


def shows_no_control_bytes(folder):
    """A tensor whose name clears the screen, and holds a NaN so that the error names it too."""
    name = b"\x1b[2J\x07.weight"
    entry = len(name).to_bytes(8, "little") + name + (2).to_bytes(4, "little") + (32).to_bytes(8, "little") + (2).to_bytes(8, "little") + bytes(12)
    head = b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") + bytes(8) + entry
    with open(f"{folder}/esc.gguf", "wb") as f:
        f.write(head + bytes(-len(head) % 32) + b"\xff" * 256)
    plan, failure = run(f"{folder}/esc.gguf", "-n", "-s", "q8_0"), run(f"{folder}/esc.gguf", f"{folder}/x", "-s", "q8_0")
    for done, status, word in ((plan, 0, "-> q8_0"), (failure, EX_DATAERR, "NaN")):
        expect(done, status, "?[2J?.weight", word)
        if "\x1b" in done.stdout + done.stderr:
            raise AssertionError(f"said: {done.stdout + done.stderr!r}")
    os.unlink(f"{folder}/esc.gguf")


def says_json_of_any_name(folder):
    name = os.fsencode(folder) + b"/caf\xe9.gguf"
    done = run(MODEL, name, "--scheme", "q8_0", "--json", "--quiet")
    expect(done, 0)
    if json.loads(done.stdout)["output"] != f"{folder}/caf\ufffd.gguf" or not os.path.exists(name):
        raise AssertionError(done.stdout)
    os.unlink(name)


def follows_links(folder):
    """As Hugging Face's cache has it: snapshots/REVISION/NAME is a link to blobs/DIGEST."""
    source, snapshot, blobs = os.path.join(ROOT, "models", "tiny-kjv"), f"{folder}/hub/snapshots/r1", f"{folder}/hub/blobs"
    os.makedirs(snapshot)
    os.makedirs(blobs)
    for i, name in enumerate(("model.safetensors", "config.json", "vocab_spm.json")):
        shutil.copy(os.path.join(source, name), f"{blobs}/{i}")
        os.symlink(f"../../blobs/{i}", f"{snapshot}/{name}")
    expect(run(source, f"{folder}/plain.gguf", "--scheme", "q8_0"), 0)
    expect(run(snapshot, f"{folder}/folder.gguf", "--scheme", "q8_0"), 0)
    expect(run(f"{snapshot}/model.safetensors", f"{folder}/file.gguf", "--scheme", "q8_0"), 0)
    (_, plain), (_, by_folder), (_, by_file) = (gguf.read(f"{folder}/{name}.gguf") for name in ("plain", "folder", "file"))
    if by_folder != plain or by_file != plain:
        raise AssertionError("links lead to other tensors")
    os.unlink(f"{snapshot}/config.json")
    os.symlink(f"{folder}/nowhere", f"{snapshot}/config.json")  # as if it were not there: no config.json is required
    expect(run(snapshot, "--dry-run", "--scheme", "q8_0"), 0, "model.embed_tokens.weight")
    for name in ("plain", "folder", "file"):
        os.unlink(f"{folder}/{name}.gguf")
    shutil.rmtree(f"{folder}/hub")


def takes_an_importance_matrix(folder):
    """One content under two names and in two folders makes one file; what is none, or another model's, says what to do."""
    os.mkdir(f"{folder}/sub")
    imatrix.make(MODEL, f"{folder}/a.imatrix", seed=5)
    shutil.copy(f"{folder}/a.imatrix", f"{folder}/sub/other")
    expect(run(MODEL, f"{folder}/w1.gguf", "-s", "q4_0", "--imatrix", f"{folder}/a.imatrix"), 0)
    expect(run(MODEL, f"{folder}/w2.gguf", "-s", "q4_0", "--imatrix", "other", cwd=f"{folder}/sub"), 0)
    facts, _ = gguf.read(f"{folder}/w1.gguf")
    if facts["quantize.imatrix.file"] != "imatrix.gguf" or facts["quantize.imatrix.entries_count"] != 14 or len(facts["quantd.imatrix"]) != 64:
        raise AssertionError(facts)
    with open(f"{folder}/w1.gguf", "rb") as one, open(f"{folder}/w2.gguf", "rb") as two:
        if one.read() != two.read():
            raise AssertionError("the name of the matrix is in the file")
    for wrong, status, words in ((MODEL, EX_DATAERR, ("no importance matrix", "llama-imatrix")), (f"{folder}/none", EX_NOINPUT, ("none",)),
                                 (folder, EX_DATAERR, ("not a regular file",))):
        expect(run(MODEL, f"{folder}/x.gguf", "-s", "q4_0", "--imatrix", wrong), status, *words)
    imatrix.write_dat(f"{folder}/b.imatrix", {"blk.0.attn_q.weight": ([1.0] * 255, [1])}, "text", 1)
    expect(run(MODEL, f"{folder}/x.gguf", "-s", "q4_0", "--imatrix", f"{folder}/b.imatrix"), EX_USAGE, "'blk.0.attn_q.weight' has 256 columns", "255 values")
    expect(run(MODEL, f"{folder}/x.gguf", "-s", "q4_0", "--imatrix", f"{folder}/b.imatrix", "-m", "0"), EX_DATAERR, "more memory than")
    if os.path.exists(f"{folder}/x.gguf"):
        raise AssertionError("a failed run left its output")
    for name in ("a.imatrix", "b.imatrix", "w1.gguf", "w2.gguf"):
        os.unlink(f"{folder}/{name}")
    shutil.rmtree(f"{folder}/sub")


def short_run_tells_no_progress(folder):
    done = run(MODEL, f"{folder}/p.gguf", "--scheme", "q8_0")
    if done.stderr:
        raise AssertionError(f"said: {done.stderr}")
    os.unlink(f"{folder}/p.gguf")


def long_run_tells_progress(folder):
    """Two seconds of standing still make any run a long one."""
    with subprocess.Popen([WORKER, "--direct", large_model(folder), f"{folder}/l.gguf", "--scheme", "q4_0"], stderr=subprocess.PIPE, text=True) as p:
        time.sleep(0.1)
        p.send_signal(signal.SIGSTOP)
        time.sleep(2)
        p.send_signal(signal.SIGCONT)
        said = p.stderr.readline()
        p.kill()
    if " % of 4294967" not in said or "MB/s" not in said:
        raise AssertionError(f"said: {said}")
    os.unlink(f"{folder}/large.gguf")


with tempfile.TemporaryDirectory() as work:
    for check in (makes_a_file, keeps_what_is_there, says_json, dry_run_writes_nothing, says_what_is_wrong, takes_choices_of_types,
                  says_what_is_wrong_with_a_choice, refuses_a_second_quantization,
                  never_replaces_the_model, says_json_of_any_name, follows_links, takes_an_importance_matrix, shows_no_control_bytes, short_run_tells_no_progress, long_run_tells_progress):
        tap.case(f"direct {check.__name__.replace('_', ' ')}", lambda: check(work))
    tap.case("direct killed with SIGKILL leaves nothing under the name", lambda: killed(work, signal.SIGKILL, -signal.SIGKILL))
    tap.case("direct interrupted says so and leaves nothing under the name", lambda: killed(work, signal.SIGTERM, EX_TEMPFAIL))
tap.end()
