"""Perplexity of the stories260K language model over its evaluation text, by ONNX Runtime."""
import os
import struct

import numpy

BOS, CONTEXT = 1, 256


def pieces(path):
    """[(score, bytes)] of llama2.c's tokenizer file."""
    with open(path, "rb") as f:
        data = f.read()
    found, at = [], 4
    while at < len(data):
        score, n = struct.unpack_from("<fi", data, at)
        found.append((score, data[at + 8:at + 8 + n]))
        at += 8 + n
    return found


def tokenize(text, vocabulary):
    """Byte pairs merged by the best score, as llama2.c does; begins with a space."""
    ids = {piece: i for i, (_, piece) in reversed(list(enumerate(vocabulary)))}
    tokens = [ids[b" "]]
    for letter in text:
        raw = letter.encode()
        tokens += [ids[raw]] if raw in ids else [b + 3 for b in raw]
    while True:
        best, at = -1e10, None
        for i in range(len(tokens) - 1):
            merged = ids.get(vocabulary[tokens[i]][1] + vocabulary[tokens[i + 1]][1])
            if merged is not None and vocabulary[merged][0] > best:
                best, at, token = vocabulary[merged][0], i, merged
        if at is None:
            return tokens
        tokens[at:at + 2] = [token]


class Perplexity:
    name, unit = "stories260K", "perplexity"

    def __init__(self, folder):
        self.model = os.path.join(folder, "stories260K.onnx")
        with open(os.path.join(folder, "eval_stories.txt"), encoding="utf-8") as f:
            self.tokens = tokenize(f.read(), pieces(os.path.join(folder, "tok512.bin")))

    def score(self, session):
        """Every token is foretold from those before it in its window, which begins with BOS."""
        loss, n = 0.0, 0
        for first in range(0, len(self.tokens), CONTEXT - 1):
            window = [BOS] + self.tokens[first:first + CONTEXT - 1]
            logits = session.run({"input_ids": numpy.array([window], "i8")})["logits"][0].astype("f8")
            logits -= logits.max(1, keepdims=True)
            logits -= numpy.log(numpy.exp(logits).sum(1, keepdims=True))
            loss -= logits[numpy.arange(len(window) - 1), window[1:]].sum()
            n += len(window) - 1
        perplexity = float(numpy.exp(loss / n))
        return -perplexity, f"{perplexity:.4f}"

    def calibration(self, folder, session):
        text = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. " * 4
        with open(os.path.join(os.path.dirname(self.model), "tok512.bin"), "rb"):
            tokens = tokenize(text, pieces(os.path.join(os.path.dirname(self.model), "tok512.bin")))
        for i in range(4):
            numpy.save(os.path.join(folder, f"{i}.npy"), numpy.array([tokens[i * 16:i * 16 + 64]], "i8"))

    def feeds(self):
        return {"input_ids": numpy.array([self.tokens[:128]], "i8")}
