#!/usr/bin/env python3
"""Products with the weights of ONNX models beside ONNX Runtime, in turns; writes the tables of docs/matmul-codes.md.

usage: bench_codes.py DAEMON WORKER QUANTCTL BENCH_CODES PAGE [--only=SCHEME]
Two models of MatMul alone are served by a private daemon. bench_codes computes with their artifacts as an app does, and
ONNX Runtime (below QUANTD_PEERS; left out by name where it or numpy is not there) runs the portable files. What stands
above the line MARK of PAGE is kept; with --only nothing is written.
"""
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "tools"), os.path.join(HERE, "..", "peers")]
import onnx_file as onnx  # noqa: E402
from house import House   # noqa: E402

try:
    import numpy
    import ort
    API, WHY = ort.Api(os.environ.get("QUANTD_PEERS", "")), ""
except Exception as e:  # no numpy, or ort.Absent, which has no name without it
    API, WHY = None, e

DAEMON, WORKER, QUANTCTL, BENCH, PAGE, *OPTIONS = sys.argv[1:]
ONLY = [o.split("=", 1)[1] for o in OPTIONS if o.startswith("--only=")]
MARK = "<!-- below: written by ./dev bench codes -->\n"
HEAD = ("| weights | out x in | n | threads | packed Gop/s | portable Gop/s | ONNX Runtime Gop/s | x ONNX Runtime | portable x "
        "| GB/s | of reading | of multiplying |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
SHAPES = ((4096, 16), (11008, 6))  # outputs, matrices: of 4-bit codes 128 MB, of floats 1 GB
N_INPUTS, N_MAX = 4096, 512
COLUMNS = ((1, 7), (16, 5), (N_MAX, 3))  # n, rounds
FORMS = (("int8-dynamic", 17), ("int8-weight", 17), ("int4", 17), ("int4", 21))
POOL_BYTES = 64 << 20
TURN = 0.15  # seconds of laps, of which the median counts: a guest that was idle may lose 40 ms of the first
REST = 0.05  # ONNX Runtime's threads spin for a while after a run


# ---- models ----


def random_floats(n_bytes, seed):
    """Any sign and mantissa, magnitudes from 2^-7 to 2."""
    mask = int.from_bytes(b"\xff\xff\xff\x83" * (1 << 18), "little")
    raised = int.from_bytes(b"\x00\x00\x00\x3c" * (1 << 18), "little")
    rng = random.Random(seed)
    return b"".join(((int.from_bytes(rng.randbytes(1 << 20), "little") & mask) | raised).to_bytes(1 << 20, "little")
                    for _ in range(n_bytes >> 20))


def write_weights(path, n_bytes, n_matrices, pool):
    with open(path, "wb") as f:
        for i in range(n_matrices):
            at, left = i * 3 << 20, n_bytes  # each matrix begins elsewhere in the pool
            while left:
                f.write(pool[at:at + left])
                left -= min(left, len(pool) - at)
                at = 0


def model(n_outputs, n_matrices, opset, location):
    """y00 = x w00, y01 = x w01, ..."""
    n_bytes = N_INPUTS * n_outputs * 4
    numbers = [f"{i:02}" for i in range(n_matrices)]
    weights = [onnx.tensor(f"w{n}", [N_INPUTS, n_outputs], b"",
                           external={"location": location, "offset": str(i * n_bytes), "length": str(n_bytes)})
               for i, n in enumerate(numbers)]
    nodes = [onnx.node("MatMul", ["x", f"w{n}"], [f"y{n}"], name=f"matmul{n}") for n in numbers]
    outputs = [onnx.value(f"y{n}", ["n", n_outputs]) for n in numbers]
    return onnx.model(onnx.graph(nodes, [onnx.value("x", ["n", N_INPUTS])], outputs, weights), opset)


def write_models(house):
    pool = random_floats(POOL_BYTES, 1)
    for n_outputs, n_matrices in SHAPES:
        location = f"w{n_outputs}.bin"
        write_weights(house.path("models", location), N_INPUTS * n_outputs * 4, n_matrices, pool)
        for opset in sorted({opset for _, opset in FORMS}):
            with open(house.path("models", f"m{n_outputs}-{opset}.onnx"), "wb") as f:
                f.write(model(n_outputs, n_matrices, opset, location))


# ---- contestants ----


class Ours:
    """bench_codes with one artifact."""

    def __init__(self, house, name, scheme):
        self.process = subprocess.Popen([BENCH, house.path("run", "quantd", "quantd.sock"), name, scheme, house.path()],
                                        env=house.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = json.loads(self.line())

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{BENCH}: status {self.process.wait()}")
        return line

    def rate(self, who, n, threads):
        self.process.stdin.write(f"{who} {n} {threads}\n")
        self.process.stdin.flush()
        return float(self.line())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Theirs:
    """A session with @threads; one run is a lap over all matrices, of which the last product is handed out."""

    def __init__(self, path, folder, threads):
        self.session, self.threads = ort.Session(API, path, threads), threads
        self.x = numpy.fromfile(f"{folder}/x", "<f4").reshape(N_MAX, N_INPUTS)
        self.y = numpy.fromfile(f"{folder}/y", "<f4")

    def seconds(self, n):
        clock = time.thread_time if self.threads == 1 else time.perf_counter  # as bench_codes does
        self.session.run({"x": self.x[:n]}, self.session.outputs[-1:], clock)
        return self.session.seconds

    def difference(self):
        """Of one column's product with the first matrix: the largest, of its largest value."""
        first = self.session.outputs[0]
        y = self.session.run({"x": self.x[:1]}, [first])[first].reshape(-1)
        return float(abs(y - self.y).max() / abs(y).max())


# ---- races ----


def turn(rate_of_lap):
    end, rates = time.perf_counter() + TURN, []
    while not rates or time.perf_counter() < end:
        rates.append(rate_of_lap())
    return statistics.median(rates)


def race(ours, theirs, n, rounds, threads):
    """Medians of rounds in which all take their turn."""
    facts, rates = ours.facts, {}
    ops = 2e-9 * facts["matrices"] * n * facts["rows"] * facts["cols"]
    laps = {who: lambda who=who: ours.rate(who, n, threads) for who in ("packed", "portable")}
    if theirs:
        laps["theirs"] = lambda: ops / theirs.seconds(n)
    for who, at in (("read", 1), ("multiply", N_MAX)):
        if n == at:
            laps[who] = lambda who=who: ours.rate(who, n, threads)
    for i in range(rounds + 1):  # the first warms up
        for who, rate_of_lap in laps.items():
            rate = turn(rate_of_lap)
            time.sleep(REST if who == "theirs" else 0)
            if i:
                rates.setdefault(who, []).append(rate)
    return {who: statistics.median(r) for who, r in rates.items()}


def cells(title, facts, n, threads, rates):
    gb_s = rates["packed"] / (2e-9 * facts["rows"] * facts["cols"] * n) * facts["bytes"] * 1e-9
    theirs = rates.get("theirs", 0)
    share = {"read": f"{gb_s / rates['read']:.0%} of {rates['read']:.1f}" if "read" in rates else "",
             "multiply": f"{rates['packed'] / rates['multiply']:.0%} of {rates['multiply']:.0f}" if rates.get("multiply") else ""}
    return (title, f"{facts['rows']} x {facts['cols']}", str(n), str(threads), f"{rates['packed']:.1f}", f"{rates['portable']:.1f}",
            f"{theirs:.1f}" if theirs else "", *(f"{rates[who] / theirs:.2f}" if theirs else "" for who in ("packed", "portable")),
            f"{gb_s:.1f}" if n == 1 else "", share["read"], share["multiply"])


def run_form(house, scheme, opset, n_outputs):
    """Rows of the table, and what is said of the weights."""
    name, rows, difference = f"m{n_outputs}-{opset}", [], ""
    title = scheme if opset == FORMS[0][1] else f"{scheme}, opset {opset}"
    folder = house.path(f"{scheme}-{name}")
    os.makedirs(folder)
    house.ctl("open", name, "--scheme", scheme, "--output", f"{folder}/", timeout=1200)
    ours = Ours(house, name, scheme)
    facts = ours.facts
    for threads in sorted({1, facts["cores"]}):
        theirs = Theirs(f"{folder}/model.onnx", house.path(), threads) if API else None
        for n, rounds in COLUMNS:
            rows.append(cells(title, facts, n, threads, race(ours, theirs, n, rounds, threads)))
            print("  ".join(f"{c:>11}" for c in rows[-1]), flush=True)
        if theirs:
            difference = f"{theirs.difference():.1e}"
            theirs.session.close()
    ours.close()
    block = f"blocks of {facts['block']}" if facts["block"] else "per channel"
    said = (title, rows[0][1], f"{facts['type']} in {facts['order']}, {block}", str(facts["matrices"]),
            f"{facts['bytes'] * facts['matrices'] / 1e6:.0f}", difference)
    print("  ".join(said), flush=True)
    return sorted(rows, key=lambda row: int(row[2])), said, facts


def lines(rows):
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def page():
    rows, said = [], []
    with tempfile.TemporaryDirectory(prefix="quantd-bench.", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        with House(DAEMON, WORKER, QUANTCTL, folder=folder) as house:
            write_models(house)
            house.start()
            for scheme, opset in FORMS:
                for n_outputs, _ in SHAPES:
                    if not ONLY or scheme in ONLY:
                        more, what, facts = run_form(house, scheme, opset, n_outputs)
                        rows, said = rows + more, said + [what]
    peer = f"beside ONNX Runtime {API.version}" if API else "no peer"
    return (f"{facts['cpu']}, {facts['features']}, {facts['compiler']}; packed as {facts['layout']}; {peer}.\n\n" + HEAD + lines(rows) +
            "\nWeights, and the largest difference of a product from ONNX Runtime's, of its largest value:\n\n"
            "| weights | out x in | as | matrices | MB together | difference |\n|---|---|---|---|---|---|\n" + lines(said))


if not API:
    print(f"left out: ONNX Runtime: {WHY}", flush=True)
written = page()
if not ONLY:
    with open(PAGE, encoding="utf-8") as f:
        above = f.read().split(MARK)[0]
    with open(PAGE, "w", encoding="utf-8") as f:
        f.write(above + MARK + "\n" + written)
    print(f"written: {PAGE}")
