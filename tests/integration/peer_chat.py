#!/usr/bin/env python3
"""client/examples/chat.c goes on as libllama does: greedy tokens from the artifact that quantd serves to both.

usage: peer_chat.py ROOT DAEMON WORKER QUANTCTL EXAMPLE-CHAT PEER-PROGRAMS-FOLDER
Models: the shipped one and ../shared/models/stories260K. One thread each; libllama keeps keys and values in f32 and uses no
flash attention.

f32: all tokens are the same. q8_0: up to the first step whose two best logits libllama has nearer than NEAR. Activations are
rounded to 8 bits by both, in the same way, so the two agree to the last bits of an f32 until one of some 3,000 codes a token
rounds the other way, because two f32 sums differ in their last bit; from then on their logits differ by hundredths. libllama
differs so from itself, built for AVX2 and for AVX-512 (docs/formats/compute.md). So the rule must hold for most prompts, and the
logits of the first steps must agree in all of them.
"""
import os
import re
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import engines
import tap
from house import House

ROOT, DAEMON, WORKER, QUANTCTL, CHAT, PEERS = sys.argv[1:7]
PEER = os.path.join(PEERS, "peer_chat")
N_TOKENS, LEFT_OUT = 200, 77
NEAR, CLOSE, FAR = 1e-3, 1e-4, 0.5  # logits: of two tokens; of one by both, exact but for the last bits; and after a code differs
PROMPTS = {
    "tiny-kjv": ("And it came to pass", "In the beginning", "And God said", "Blessed are"),
    "stories260K": ("Lily and Tom", "Sara", "In the park", "A little boy named Tim"),
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


def run(house, command):
    done = subprocess.run(command, env=house.env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


class Race:
    """One prompt, read and continued by both."""

    def __init__(self, house, model, scheme, prompt):
        trace = house.path("trace")
        done = run(house, [CHAT, "--model", model, "--scheme", scheme, "--prompt", prompt, "--tokens", str(N_TOKENS), "--temp", "0", "--ignore-eos", "1",
                           "--trace", trace])
        with open(trace) as f:
            self.ours = steps(f.read())
        self.rate = rate(done.stderr)
        done = run(house, [QUANTCTL, "open", model, "--scheme", scheme, "--", PEER, "{}", prompt, str(N_TOKENS)])
        self.theirs = steps(done.stdout)
        self.peer_rate = rate(done.stdout)
        assert len(self.ours) == len(self.theirs) == N_TOKENS, (len(self.ours), len(self.theirs))

    def first(self, is_so):
        return next((i for i, (a, b) in enumerate(zip(self.ours, self.theirs)) if is_so(a, b)), N_TOKENS)

    def same(self):
        return self.first(lambda a, b: a.token != b.token)

    def near(self):
        return self.first(lambda a, b: b.gap < NEAR)

    def close(self):
        return self.first(lambda a, b: abs(a.best - b.best) > CLOSE)

    def says(self):
        return (f"{self.same()} of {N_TOKENS} tokens the same, libllama's two best are nearer than {NEAR} at step {self.near()}, logits within "
                f"{CLOSE} for {self.close()} steps; {self.rate:.0f} tokens per second, libllama {self.peer_rate:.0f}")


def check_f32(house, model, prompt):
    race = Race(house, model, "f32", prompt)
    print(f"# {model} f32 {prompt!a}: {race.says()}")
    assert race.same() == N_TOKENS and race.close() == N_TOKENS, race.says()


def check_q8_0(house, model, prompts):
    n_held = n_close = 0
    for prompt in prompts:
        race = Race(house, model, "q8_0", prompt)
        held = race.same() >= race.near()
        print(f"# {model} q8_0 '{prompt}': {'held' if held else 'A CODE ROUNDED THE OTHER WAY'}: {race.says()}")
        assert all(abs(a.best - b.best) < FAR for a, b in zip(race.ours[:3], race.theirs)), race.says()
        n_held += held
        n_close += race.close() > 0
    assert n_held >= len(prompts) - 1, f"held for {n_held} of {len(prompts)} prompts"
    assert n_close >= len(prompts) / 2, f"the first logits agree for {n_close} of {len(prompts)} prompts"


def is_there():
    return os.path.exists(PEER) and subprocess.run([PEER, "/dev/null", "x", "1"], capture_output=True).returncode != LEFT_OUT


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
            for prompt in (*prompts, ODD_PROMPT):
                tap.case(f"{model} f32 {prompt!a}: {N_TOKENS} tokens are libllama's", lambda: check_f32(house, model, prompt))
            tap.case(f"{model} q8_0: tokens are libllama's up to a near tie", lambda: check_q8_0(house, model, prompts))
    tap.end()


main()
