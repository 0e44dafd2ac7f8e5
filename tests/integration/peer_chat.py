#!/usr/bin/env python3
"""client/examples/chat.c goes on as libllama does: greedy tokens from the artifact that quantd serves to both.

usage: peer_chat.py ROOT DAEMON WORKER QUANTCTL EXAMPLE-CHAT PEER-PROGRAMS-FOLDER [--long]
Models: the shipped one and ../shared/models/stories260K. One thread each; libllama keeps keys and values in f32 and uses no
flash attention.

f32: all tokens are the same. q8_0: up to the first step whose two best logits libllama has nearer than NEAR. Activations are
rounded to 8 bits by both, in the same way, so the two agree to the last bits of an f32 until one of some 3,000 codes a token
rounds the other way, because two f32 sums differ in their last bit; from then on their logits differ by hundredths. libllama
differs so from itself, built for AVX2 and for AVX-512 (docs/formats/compute.md). So the rule must hold for most prompts, and the
logits of the first steps must agree in all of them.

--long asks how often: more prompts, and beside quantd and libllama, libllama on another of its CPU backends and libllama.
"""
import os
import re
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import engines
import tap
from house import House

ROOT, DAEMON, WORKER, QUANTCTL, CHAT, PEERS, *OPTIONS = sys.argv[1:]
PEER = os.path.join(PEERS, "peer_chat")
N_TOKENS, LEFT_OUT = 200, 77
NEAR, CLOSE, FAR = 1e-3, 1e-4, 0.5  # logits: of two tokens; of one by both, exact but for the last bits; and after a code differs
PROMPTS = {
    "tiny-kjv": ("And it came to pass", "In the beginning", "And God said", "Blessed are"),
    "stories260K": ("Lily and Tom", "Sara", "In the park", "A little boy named Tim"),
}
MORE_PROMPTS = {
    "tiny-kjv": ("The LORD is my", "Then Moses", "And David said unto", "For the wicked", "Woe unto them", "My son,", "Now the sons of",
                 "Praise ye"),
    "stories260K": ("Once upon a time", "The big dog", "One day, a girl", "Mom said", "There was a red ball", "Tim and Sam went", "It was a sunny day",
                    "The cat"),
}
ODD_PROMPT = "  Zoë saw\ta 🐢,\n\nand 3 cafés"  # spaces, characters that are no tokens


class Step:
    def __init__(self, line):
        first, best, second, next_best = line.split()
        self.token, self.best, self.gap = int(first), float(best), float(best) - float(next_best)


def steps(text):
    return [Step(line) for line in text.splitlines() if re.match(r"\d", line)]


def rate(text):
    return float(re.search(r"made:? .* ([0-9.]+) per second", text).group(1))


def run(house, command, more_env={}):
    done = subprocess.run(command, env=house.env | more_env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


class Text:
    """How a model goes on from a prompt: what a program said of it."""

    def __init__(self, traced, said):
        self.steps, self.rate = steps(traced), rate(said)
        assert len(self.steps) == N_TOKENS, len(self.steps)


def by_quantd(house, model, scheme, prompt):
    trace = house.path("trace")
    done = run(house, [CHAT, "--model", model, "--scheme", scheme, "--prompt", prompt, "--tokens", str(N_TOKENS), "--temp", "0", "--ignore-eos", "1",
                       "--trace", trace])
    with open(trace) as f:
        return Text(f.read(), done.stderr)


def by_libllama(house, model, scheme, prompt, folder=None):
    """@folder: of another choice of its libraries."""
    done = run(house, [QUANTCTL, "open", model, "--scheme", scheme, "--", PEER, "{}", prompt, str(N_TOKENS)], {"QUANTD_PEERS": folder} if folder else {})
    return Text(done.stdout, done.stdout)


class Race:
    """One prompt, continued by both."""

    def __init__(self, ours, theirs):
        self.ours, self.theirs, self.rate, self.peer_rate = ours.steps, theirs.steps, ours.rate, theirs.rate

    def first(self, is_so):
        return next((i for i, (a, b) in enumerate(zip(self.ours, self.theirs)) if is_so(a, b)), N_TOKENS)

    def same(self):
        return self.first(lambda a, b: a.token != b.token)

    def near(self):
        return self.first(lambda a, b: b.gap < NEAR)

    def held(self):
        return self.same() >= self.near()

    def close(self):
        return self.first(lambda a, b: abs(a.best - b.best) > CLOSE)

    def says(self):
        return (f"{self.same()} of {N_TOKENS} tokens the same, libllama's two best are nearer than {NEAR} at step {self.near()}, logits within "
                f"{CLOSE} for {self.close()} steps; {self.rate:.0f} tokens per second, libllama {self.peer_rate:.0f}")


def check_f32(house, model, prompt):
    race = Race(by_quantd(house, model, "f32", prompt), by_libllama(house, model, "f32", prompt))
    print(f"# {model} f32 {prompt!a}: {race.says()}")
    assert race.same() == N_TOKENS and race.close() == N_TOKENS, race.says()


def check_q8_0(house, model, prompts):
    n_held = n_close = 0
    for prompt in prompts:
        race = Race(by_quantd(house, model, "q8_0", prompt), by_libllama(house, model, "q8_0", prompt))
        print(f"# {model} q8_0 '{prompt}': {'held' if race.held() else 'A CODE ROUNDED THE OTHER WAY'}: {race.says()}")
        assert all(abs(a.best - b.best) < FAR for a, b in zip(race.ours[:3], race.theirs)), race.says()
        n_held += race.held()
        n_close += race.close() > 0
    assert n_held >= len(prompts) - 1, f"held for {n_held} of {len(prompts)} prompts"
    assert n_close >= len(prompts) / 2, f"the first logits agree for {n_close} of {len(prompts)} prompts"


# ---- the long form ----


def other_libraries(target):
    """Links to libllama's libraries with one backend alone, which is not the one that it would take here; its name."""
    source = os.environ["QUANTD_PEERS"]
    with open("/proc/cpuinfo") as f:
        other = "haswell" if "avx512f" in f.read() else "sandybridge"
    for name in os.listdir(source):
        if name.endswith(".so") and (not name.startswith("libggml-cpu-") or name == f"libggml-cpu-{other}.so"):
            os.symlink(os.path.join(source, name), os.path.join(target, name))
    return other


def count_held(house, model, prompts):
    with tempfile.TemporaryDirectory() as folder:
        other = other_libraries(folder)
        for scheme in ("f32", "q8_0"):
            held = {"quantd": 0, f"libllama on {other}": 0}
            for prompt in prompts:
                judge = by_libllama(house, model, scheme, prompt)
                for who, text in zip(held, (by_quantd(house, model, scheme, prompt), by_libllama(house, model, scheme, prompt, folder))):
                    race = Race(text, judge)
                    held[who] += race.held()
                    print(f"# {model} {scheme} '{prompt}': {who}: {race.says()}", flush=True)
            print(f"# {model} {scheme}: libllama's tokens up to a near tie, of {len(prompts)} prompts: " +
                  ", ".join(f"{who} {n}" for who, n in held.items()), flush=True)


def is_there():
    return os.path.exists(PEER) and subprocess.run([PEER, "/dev/null", "x", "1"], capture_output=True).returncode != LEFT_OUT


def check_model(house, model, prompts):
    for prompt in (*prompts, ODD_PROMPT):
        tap.case(f"{model} f32 {prompt!a}: {N_TOKENS} tokens are libllama's", lambda: check_f32(house, model, prompt))
    tap.case(f"{model} q8_0: tokens are libllama's up to a near tie", lambda: check_q8_0(house, model, prompts))


def main():
    if not is_there():
        tap.left_out("peer_chat", "no peer (./dev peers fetches it)")
        tap.end()
    with House(DAEMON, WORKER, QUANTCTL) as house:
        house.start()
        models = engines.models(ROOT)
        for model, prompts in PROMPTS.items():
            if model not in models:
                tap.left_out(f"peer_chat of {model}", "no ../shared/models/stories260K")
                continue
            house.add(models[model][0], model + ".gguf")
            house.until_ready(model)
            if "--long" in OPTIONS:
                count_held(house, model, prompts + MORE_PROMPTS[model])
            else:
                check_model(house, model, prompts)
    if "--long" not in OPTIONS:  # which judges nothing
        tap.end()


main()
