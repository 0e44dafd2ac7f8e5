#!/usr/bin/env python3
"""ONNX models through the daemon: watched, calibrated with what lies beside them, served as two files, told about.

usage: onnx_served.py DAEMON WORKER QUANTCTL RUN_MODEL SEND_STATISTICS
"""
import hashlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import onnx_file as onnx
import onnx_network
import tap
from house import SANITIZED, Failed, House

DAEMON, WORKER, QUANTCTL, RUN_MODEL, SEND_STATISTICS = (os.path.abspath(p) for p in sys.argv[1:6])
SIZE = onnx_network.SIZE
EX_USAGE, EX_DATAERR, EX_NOPERM = 64, 65, 77
SLOW, BATCH = 100, 32 if SANITIZED else 512  # samples, and images in each: they take some ten seconds, to be stopped among them


def put(path, content):
    """Whole at once, as a writer should who is watched."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{os.path.dirname(path)}/.part", "wb") as f:
        f.write(content)
    os.rename(f.name, path)
    return path


def read(path):
    with open(path, "rb") as f:
        return f.read()


class OnnxHouse(House):
    def __init__(self):
        super().__init__(DAEMON, WORKER, QUANTCTL)

    def model(self, name="m", samples=0, batch=1, **network):
        """Puts a network into the watched folder, samples first, and waits until it is ready with all of them."""
        onnx_network.rng.seed(5)
        for i in range(samples):
            self.sample(name, f"{i:04}.npy", onnx_network.sample(i, batch=batch))
        put(self.path("models", f"{name}.onnx"), onnx_network.network(**network))
        self.until_ready(name)

    def sample(self, model, name, content):
        return put(self.path("models", f"{model}.calib", name), content)

    def settled(self, model):
        """After a change of its samples: the daemon has seen it."""
        seen = self.log().count(f"model changed model={model} ")
        return lambda: self.until("the change is seen", lambda: self.log().count(f"model changed model={model} ") > seen) and self.until_ready(model)

    def refused(self, status, words, *arguments):
        try:
            answer = self.ctl(*arguments)
        except Failed as said:
            assert said.status == status and all(w in said.text for w in words), said
        else:
            raise AssertionError(f"{arguments} were not refused: {answer}")

    def jobs(self):
        return self.ctl("jobs")["jobs"]


def house(check):
    def run():
        with OnnxHouse() as h:
            h.start()
            check(h)
            assert h.stop() == 0
    return run


def run_model(h, model, seed):
    raw = onnx_network.sample(seed)[-4 * 3 * SIZE * SIZE:]
    done = subprocess.run([RUN_MODEL, model, h.path("out"), f"x=float32:1x3x{SIZE}x{SIZE}:{put(h.path('in'), raw)}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = read(h.path("out.0.bin"))
    return struct.unpack(f"<{len(content) // 4}f", content)


def loss(h, model):
    pairs = [(run_model(h, h.path("models", "m.onnx"), seed), run_model(h, model, seed)) for seed in range(500, 504)]
    return max(max(abs(p - q) for p, q in zip(a, b)) / max(abs(p) for p in a) for a, b in pairs)


def children(pid):
    return subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()


# ---- what is served ----


def same_as_one_shot(h):
    h.model(samples=8)
    data = h.path("models", "m.calib")
    for scheme, more in (("int8-weight", []), ("int8-static", ["--bits", "8", "--method", "mse"]), ("int8-dynamic", ["--bits", "7"]), ("f16", []),
                         ("int4", ["--block", "64", "--asymmetric"])):
        opened = h.ctl("open", "m", "--scheme", scheme, *more, "--output", h.path(scheme) + "/")
        assert opened["scheme"] == scheme and all(f"{o[2:]}={v}" in opened["recipe"] for o, v in zip(more[::2], more[1::2])), opened
        direct = h.path(f"{scheme}-direct")
        os.makedirs(direct)
        calibration = ["--calibration", data] if scheme == "int8-static" else []
        done = subprocess.run([WORKER, "--direct", h.path("models", "m.onnx"), f"{direct}/model.onnx", "--scheme", scheme, *more, *calibration],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for name in ("model.onnx", "model.onnx.data"):
            assert read(f"{h.path(scheme)}/{name}") == read(f"{direct}/{name}"), f"{scheme}: {name} is another"
        assert loss(h, h.path(scheme, "model.onnx")) < (0.3 if scheme == "int4" else 0.1), scheme


def views(h):
    h.model()
    h.ctl("open", "m", "--scheme", "int8-weight", "--output", h.path("out") + "/")
    tensors = {t["name"]: t for t in h.ctl("show", "m:int8-weight")["tensors"]}
    codes = next(t for name, t in tensors.items() if name.startswith("w4_quantized"))
    scale = next(t for name, t in tensors.items() if name.startswith("w4_scale"))
    assert (codes["from"], codes["to"], codes["shape"]) == ("f32", "i8", f"{onnx_network.CLASSES}x{onnx_network.HIDDEN}"), codes
    assert codes["sqnr_db"] > 30 and codes["max_abs"] > 0 and "int8 by axis" in codes["reason"], codes
    files = [read(h.path("out", name)) for name in ("model.onnx", "model.onnx.data")]
    found = [f for f in files if len(f) >= codes["offset"] + codes["bytes"]]
    onnx_network.rng.seed(5)
    _ = onnx_network.network()  # the same numbers again, of which the last are w4's
    onnx_network.rng.seed(5)
    for n, width in ((onnx_network.CHANNELS * 27, 0.3), (onnx_network.HIDDEN * onnx_network.CHANNELS * 9, 0.1), (onnx_network.CHANNELS, 1.0),
                     (onnx_network.HIDDEN**2, 0.2), (onnx_network.HIDDEN, 1.0)):
        onnx_network.gauss(n, width)
    n = onnx_network.HIDDEN * onnx_network.CLASSES
    exact = struct.unpack(f"<{n}f", onnx_network.gauss(n))
    whole = [f[codes["offset"]:codes["offset"] + codes["bytes"]] for f in found]
    scales = [struct.unpack(f"<{onnx_network.CLASSES}f", f[scale["offset"]:scale["offset"] + scale["bytes"]]) for f in files
              if len(f) >= scale["offset"] + scale["bytes"]]
    worst = min(max(abs(w - q * s[i % onnx_network.CLASSES]) / s[i % onnx_network.CLASSES] for i, (w, q) in enumerate(zip(exact, struct.unpack(f"{n}b", c))))
                for c in whole for s in scales if all(x > 0 for x in s))
    assert worst <= 0.5001, f"{worst} steps off"
    put(h.path("models", "m.onnx"), onnx_network.network(opset=21))
    h.until("it is of opset 21", lambda: h.ctl("open", "m", "--scheme", "int4", "--asymmetric", "--output", h.path("nibbles") + "/"))
    tensors = {t["name"]: t for t in h.ctl("show", "m:int4")["tensors"]}
    codes = next(t for name, t in tensors.items() if name.startswith("w4_quantized"))
    n = onnx_network.CLASSES * onnx_network.HIDDEN
    assert (codes["to"], codes["shape"], codes["bytes"]) == ("u4", f"{onnx_network.CLASSES}x{onnx_network.HIDDEN}", n // 2), codes
    assert loss(h, h.path("nibbles", "model.onnx")) < 0.3


def quality(h):
    h.model(samples=20)
    opened = h.ctl("open", "m")
    assert opened["scheme"] == "int8" and "auto" in opened["why"], opened
    shown = h.ctl("show", "m:int8")
    assert shown["form"] in ("int8-weight", "int8-static") and "times float32's time" in shown["form_why"], shown
    assert shown["samples"] == 16 and shown["outputs"][0]["name"] == "y" and 20 < shown["outputs"][0]["sqnr_db"] < 80, shown["outputs"]
    assert 0.99 < shown["outputs"][0]["cosine"] < 1, shown["outputs"]
    worst = shown["operators"]
    assert 0 < len(worst) <= 10 and worst == sorted(worst, key=lambda v: v["sqnr_db"]) and all(v["op_type"] for v in worst), worst
    text = subprocess.run([QUANTCTL, "show", "m:int8"], env=h.env, capture_output=True, text=True).stdout
    assert f"int8 is {shown['form']}: " in text and "outputs beside the source's, over 16 samples" in text and "COSINE" in text, text


# ---- calibration data ----


def samples_are_found(h):
    h.model(samples=4)
    keys = []
    for change in (lambda: None, lambda: h.sample("m", "more.npy", onnx_network.sample(77)),
                   lambda: h.sample("m", "more.npy", onnx_network.sample(78)), lambda: os.remove(h.path("models", "m.calib", "more.npy"))):
        settled = h.settled("m")
        if change():
            settled()
        elif keys:
            h.until("the change is seen", lambda: h.ctl("open", "m", "--scheme", "int8-static")["key"] == keys[0])
        opened = h.ctl("open", "m", "--scheme", "int8-static")
        keys.append(opened["key"])
        assert h.ctl("open", "m", "--scheme", "int8-static", "--no-build")["key"] == keys[-1], "not known, though it was made just now"
        n_jobs = h.log().count("job: running")
        assert h.ctl("open", "m", "--scheme", "int8-static")["key"] == opened["key"] and h.log().count("job: running") == n_jobs, "built twice"
    assert keys[0] == keys[3] and len(set(keys)) == 3, keys
    assert h.stop() == 0
    h.start()
    h.until_ready("m")
    assert h.ctl("open", "m", "--scheme", "int8-static", "--no-build")["key"] == keys[0], "another after a restart"
    shutil.rmtree(h.path("models", "m.calib"))
    h.until("they are gone", lambda: h.status_of("open", "m", "--scheme", "int8-static") == EX_USAGE)
    h.refused(EX_USAGE, ("needs calibration data", "m", ".calib"), "open", "m", "--scheme", "int8-static")
    assert h.ctl("open", "m")["scheme"] == "int8" and h.ctl("show", "m:int8")["form_why"].startswith("no calibration data")


def bad_samples(h):
    h.model(samples=2)
    for name, content, words in (("wrong.npy", onnx_network.sample(1, SIZE + 1), ("wrong.npy", "dimension")), ("note.txt", b"x", ("note.txt", "no calibration data")),
                                 ("short.npy", onnx_network.sample(1)[:200], ("short.npy",)), ("empty.npy", b"", ("empty.npy", "empty"))):
        path = h.sample("m", name, content)
        h.until(f"{name} is refused", lambda: all(w in refusal(h) for w in words))
        os.remove(path)
    os.symlink("/etc/hostname", h.path("models", "m.calib", "link.npy"))
    h.until("a link is refused", lambda: "symbolic link" in refusal(h))
    os.remove(h.path("models", "m.calib", "link.npy"))
    h.until("all is well again", lambda: h.ctl("jobs", "--retry") is not None and h.ctl("open", "m", "--scheme", "int8-static"))


def refusal(h):
    h.ctl("jobs", "--retry")
    try:
        h.ctl("open", "m", "--scheme", "int8-static")
    except Failed as said:
        return said.text
    return ""


# ---- statistics that an app sends ----


def send(h, *arguments):
    return subprocess.run([SEND_STATISTICS, h.path("run", "quantd", "quantd.sock"), "m", *arguments], env=h.env, capture_output=True, text=True)


def sent_statistics(h):
    h.model()
    floats = [put(h.path("seen", f"{i}.raw"), onnx_network.sample(i)[-4 * 3 * SIZE * SIZE:]) for i in range(4)]
    static = ("open", "m", "--scheme", "int8-static")
    h.refused(EX_USAGE, ("needs calibration data",), *static)
    keys = []
    for n in (3, 3, 4):
        done = send(h, "x", *floats[:n])
        assert done.returncode == 0, done.stderr
        opened = h.ctl(*static)
        assert "statistics=" in opened["recipe"], opened
        keys.append(opened["key"])
    assert keys[0] == keys[1] != keys[2], keys
    assert "statistics=" not in h.ctl("open", "m", "--scheme", "int8-weight")["recipe"]
    h.ctl(*static, "--output", h.path("sent") + "/")
    assert h.stop() == 0
    h.start()
    h.until_ready("m")
    assert h.ctl(*static, "--no-build")["key"] == keys[2], "forgotten at a restart"
    for i in range(4):
        h.sample("m", f"{i}.npy", onnx_network.sample(i))
    h.until("the samples count, too", lambda: h.ctl("show", h.ctl(*static)["key"]).get("samples") == 4)
    assert h.ctl(*static)["key"] not in keys
    shutil.rmtree(h.path("models", "m.calib"))
    h.until("they are gone", lambda: h.ctl(*static)["key"] == keys[2])
    assert h.ctl(*static, "--no-build")["key"] == keys[2], "known by a look at the folder: from here on it is quiet"
    scale = {}
    for name in ("sent", "samples"):  # the range of x is that of the same samples
        if name == "samples":
            os.makedirs(h.path("data"))
            for i in range(4):
                put(h.path("data", f"{i}.npy"), onnx_network.sample(i))
            os.makedirs(h.path(name))
            done = subprocess.run([WORKER, "--direct", h.path("models", "m.onnx"), h.path(name, "model.onnx"), "--scheme", "int8-static", "--calibration",
                                   h.path("data")], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        content = read(h.path(name, "model.onnx"))
        at = content.index(b"x_scale_")
        scale[name] = content[at:at + 40].split(b"J\x04")[-1][:4] if b"J\x04" in content[at - 20:at + 40] else content[at - 12:at]
    assert scale["sent"] == scale["samples"], scale
    done = send(h, "x", "-1", "1", "432")
    assert done.returncode == 0, done.stderr
    h.refused(EX_USAGE, ("histogram",), *static)
    assert h.ctl(*static, "--method", "min-max")["scheme"] == "int8-static"
    for content, words in ((b"junk", ("CORRUPT",)), (b"", ("1 to",)), (b"x" * (17 << 20), ("1 to",))):
        done = send(h, "--raw", put(h.path("junk"), content))
        assert done.returncode != 0 and all(w.lower() in done.stderr.lower() for w in words), done.stderr
    assert send(h, "x", "1", "-1", "432").returncode == EX_USAGE
    put(h.path("models", "m.onnx"), onnx_network.network(opset=18))
    h.until("they were of another file", lambda: h.status_of(*static, "--method", "min-max") == EX_USAGE)


# ---- progress, cancelling, dying ----


def open_in_background(h, *arguments):
    return subprocess.Popen([QUANTCTL, "open", "m", "--scheme", "int8-static", *arguments], env=h.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def calibrating(h):
    return next((j for j in h.jobs() if j["state"] == "calibrating" and j.get("tensor", "").startswith("sample ") and j["tensor"] != "sample 0"), None)


def progress_and_cancel(h):
    h.configure("[jobs]\nleave_grace = 10ms\n")
    h.process.send_signal(signal.SIGHUP)
    h.model(samples=SLOW, batch=BATCH)
    for by in ("the job is cancelled", "the client leaves"):
        client = open_in_background(h)
        job = h.until("it calibrates", lambda: calibrating(h))
        assert job["tensor"].endswith(f" of {SLOW}") and 0 < job["done_bytes"] <= job["total_bytes"], job
        begun = time.monotonic()
        if by == "the job is cancelled":
            h.ctl("cancel", str(job["job"]))
        else:
            client.send_signal(signal.SIGINT)
        said = client.communicate(timeout=20)[0]
        assert client.returncode != 0, said
        h.until("the worker is gone, long before it would be done", lambda: not children(h.process.pid), 4)
        print(f"# {by}: no worker after {time.monotonic() - begun:.1f} s")
        assert not [name for name in os.listdir(h.path("cache", "quantd", "work")) if name.endswith(".part")] or by != "the job is cancelled"
    assert not h.ctl("ls")["artifacts"]


def killed(h):
    h.model(samples=SLOW, batch=BATCH)
    client = open_in_background(h)
    h.until("it calibrates", lambda: calibrating(h))
    os.kill(int(children(h.process.pid)[0]), signal.SIGKILL)
    said = client.communicate(timeout=30)[0]
    assert client.returncode != 0 and "signal 9" in said, said
    h.ctl("jobs", "--retry")
    client = open_in_background(h)
    h.until("it calibrates", lambda: calibrating(h))
    worker = int(children(h.process.pid)[0])
    h.kill()
    client.kill()
    client.communicate()
    h.until("its worker died with it", lambda: not os.path.exists(f"/proc/{worker}"))
    for i in range(8, SLOW):
        os.remove(h.path("models", "m.calib", f"{i:04}.npy"))
    h.start()
    h.until_ready("m")
    opened = h.ctl("open", "m", "--scheme", "int8-static")
    assert opened["scheme"] == "int8-static" and not h.ctl("verify")["problems"]


# ---- files ----


def external_data(h):
    raw = onnx_network.gauss(onnx_network.CHANNELS * 27, 0.3)
    external = {"location": "weights/w.bin", "offset": "64", "length": str(len(raw))}
    put(h.path("models", "weights", "w.bin"), b"x" * 64 + raw)
    h.model(external=external)
    first = h.ctl("open", "m", "--scheme", "int8-weight", "--output", h.path("out") + "/")["key"]
    assert loss(h, h.path("out", "model.onnx")) < 0.02
    put(h.path("models", "weights", "w.bin"), b"x" * 64 + onnx_network.gauss(onnx_network.CHANNELS * 27, 0.3))
    assert h.ctl("open", "m", "--scheme", "int8-weight")["key"] != first, "other weights, the same key"
    if os.geteuid() == 0:
        os.chown(h.path("models", "weights", "w.bin"), 4711, 4711)
        os.chmod(h.path("models", "weights", "w.bin"), 0o600)
        h.refused(EX_NOPERM, ("w.bin", "somebody else"), "open", "m", "--scheme", "f16")
    for location in ("../m.onnx", "/etc/passwd", "gone.bin"):
        put(h.path("models", "m.onnx"), onnx_network.network(external={**external, "location": location}))
        h.until(f"{location} is refused", lambda: h.ctl("jobs", "--retry") is not None and h.status_of("open", "m", "--scheme", "bf16") in (EX_NOPERM, 66, EX_DATAERR))


def damage(h):
    h.model()
    h.ctl("open", "m", "--scheme", "int8-weight")
    path = max((p for p, n in h.objects()), key=os.path.getsize)
    os.chmod(path, 0o600)
    with open(path, "r+b") as f:
        f.seek(100)
        f.write(b"damage")
    found = h.ctl("verify", check=False)
    assert found["problems"], found
    h.until("it is built again", lambda: not h.ctl("verify")["problems"])
    assert h.ctl("open", "m", "--scheme", "int8-weight", "--verify", "full")["scheme"] == "int8-weight"


def what_makes_no_sense(h):
    h.model()
    shutil.copy(os.path.join(os.path.dirname(DAEMON), "..", "..", "models", "tiny-kjv.gguf"), h.path("models", "g.gguf"))
    h.until_ready("g")
    h.refused(EX_USAGE, ("q4_0 is a scheme of GGUF", "int8-weight"), "open", "m", "--scheme", "q4_0")
    h.refused(EX_USAGE, ("int8 is a scheme of ONNX models", "q8_0"), "open", "g", "--scheme", "int8")
    h.refused(EX_USAGE, ("'9' bits",), "open", "m", "--scheme", "int8-dynamic", "--bits", "9")
    h.refused(EX_USAGE, ("int7", "int8"), "open", "m", "--scheme", "int7")
    put(h.path("models", "q.onnx"), b"not a model at all")
    h.until_ready("q")
    h.refused(EX_DATAERR, ("q.onnx",), "open", "q")
    plan = h.ctl("plan", "m", "--scheme", "int4")
    assert plan["scheme"] == "int4" and len(plan["tensors"]) == 4 and {t["to"] for t in plan["tensors"]} == {"u8", "i8"}, plan
    put(h.path("models", "m.calib"), b"a cache of another tool's calibration")
    opened = h.ctl("open", "m", "--scheme", "int4")
    assert opened["bytes"] == plan["file_bytes"], (opened, plan)
    h.ctl("open", "m", "--scheme", "int8-weight", "--output", h.path("once") + "/")
    h.refused(EX_USAGE, ("2 files", "folder"), "open", "m", "--scheme", "int8-weight", "--output", h.path("one.onnx"))
    shutil.copy(h.path("once", "model.onnx"), h.path("models", "again.onnx"))
    shutil.copy(h.path("once", "model.onnx.data"), h.path("models", "model.onnx.data"))
    h.until_ready("again")
    h.refused(EX_DATAERR, ("quantized already",), "open", "again", "--scheme", "int8-weight")


CASES = (("every scheme: the one-shot form's bytes, and they compute what the model does", same_as_one_shot),
         ("views of initializers: the codes and scales that stand for the weights", views),
         ("quality: outputs and the ten worst results, signed with the artifact and shown", quality),
         ("samples beside a model: found, part of its identity, kept over a restart", samples_are_found),
         ("bad samples: named, and gone when they are", bad_samples),
         ("statistics that an app sends: part of the recipe, merged with samples, kept, bad ones refused", sent_statistics),
         ("progress by samples; cancelled: soon, and nothing is left", progress_and_cancel),
         ("killed while it calibrates: worker or daemon, the next open makes it", killed),
         ("external data: found beneath, part of the identity, nobody else's", external_data),
         ("a damaged data file: found, quarantined, built again", damage),
         ("what makes no sense: refused by name", what_makes_no_sense))
for name, check in CASES:
    tap.case(name, house(check))
tap.end()
