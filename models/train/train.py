#!/usr/bin/python3
"""Trains the model that ships with quantd: a small llama on the King James Bible (public domain).

usage: models/train/train.py [--steps N] [--out FOLDER]
Needs Debian's python3-torch, libopenblas0-pthread and bible-kjv. About 20 minutes on one core. Everything is seeded and
runs on one thread, so the same machine makes the same bytes again. Writes FOLDER/tiny-kjv/ and FOLDER/tiny-kjv.gguf.
"""
import argparse
import math
import os
import time

import torch
import torch.nn.functional as F

import bpe
import corpus
import store
from net import CONFIG, Llama

NAME = "tiny-kjv"
SEED = 20260101
BATCH = 8
PEAK_RATE, LAST_RATE, WARM_UP = 2e-3, 5e-5, 100
PROMPT = "And it came to pass"


def windows(ids, generator, length):
    """One batch: BATCH windows of @length tokens that start anywhere; each begins with <s>, as libllama feeds it."""
    starts = torch.randint(0, len(ids) - length, (BATCH,), generator=generator)
    rows = torch.stack([ids[s:s + length] for s in starts.tolist()])
    begin = torch.full((BATCH, 1), bpe.BEGIN)
    return torch.cat((begin, rows[:, :-1]), dim=1), rows


def rate_at(step, n_steps):
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(1, n_steps - WARM_UP)
    return LAST_RATE + (PEAK_RATE - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def optimizer_for(net):
    decay = [p for p in net.parameters() if p.dim() == 2]
    plain = [p for p in net.parameters() if p.dim() != 2]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.95))


def train(net, ids, n_steps):
    generator = torch.Generator().manual_seed(SEED)
    optimizer, begun = optimizer_for(net), time.monotonic()
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, n_steps)
        fed, wanted = windows(ids, generator, CONFIG["max_position_embeddings"])
        loss = F.cross_entropy(net(fed).flatten(0, 1), wanted.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0 or step == n_steps - 1:
            print(f"step {step} of {n_steps}  loss {loss.item():.4f}  {time.monotonic() - begun:.0f} s", flush=True)


@torch.no_grad()
def perplexity(net, ids):
    """Over windows of 255 tokens, each after <s>: the windows tests/peers/peer_perplexity.c uses."""
    total, n = 0.0, CONFIG["max_position_embeddings"] - 1
    for at in range(0, len(ids), n):
        part = torch.tensor([[bpe.BEGIN] + ids[at:at + n]])
        total += F.cross_entropy(net(part[:, :-1])[0], part[0, 1:], reduction="sum").item()
    return math.exp(total / len(ids))


@torch.no_grad()
def generate(net, vocabulary, prompt, n_tokens):
    """Greedy continuation."""
    ids = [bpe.BEGIN] + vocabulary.encode(prompt)
    for _ in range(n_tokens):
        logits = net(torch.tensor([ids[-CONFIG["max_position_embeddings"]:]]))[0, -1]
        ids.append(int(logits.argmax()))
    return vocabulary.decode(ids).strip()


def round_to_bf16(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).float())


def save(folder, net, vocabulary, held_out):
    os.makedirs(os.path.join(folder, NAME), exist_ok=True)
    weights = dict(net.state_dict())
    store.write_folder(os.path.join(folder, NAME), weights, CONFIG, vocabulary)
    store.write_gguf(os.path.join(folder, NAME + ".gguf"), NAME, weights, CONFIG, vocabulary)
    with open(os.path.join(folder, NAME, "eval.txt"), "w", encoding="ascii") as f:
        f.write(held_out)
    with open(os.path.join(folder, NAME, "generated.txt"), "w", encoding="utf-8") as f:
        f.write(generate(net, vocabulary, PROMPT, 100) + "\n")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", default=os.path.dirname(here))
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    text, held_out = corpus.split()
    vocabulary = bpe.train(text, CONFIG["vocab_size"])
    ids = vocabulary.encode(text)
    print(f"{len(text)} letters, {len(ids)} tokens of {len(vocabulary.pieces)}", flush=True)

    net = Llama(CONFIG)
    train(net, torch.tensor(ids), options.steps)
    round_to_bf16(net)
    save(options.out, net, vocabulary, held_out)
    print(f"held-out perplexity {perplexity(net, vocabulary.encode(held_out)):.4f}")
    print(generate(net, vocabulary, PROMPT, 60))


if __name__ == "__main__":
    main()
