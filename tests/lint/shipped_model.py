#!/usr/bin/env python3
"""The shipped GGUF and safetensors folder hold the same weights, in their own orders, and stay small.

usage: shipped_model.py MODELS-FOLDER
"""
import json
import os
import struct
import sys

import tree

MAX_BYTES = 3_000_000
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
F32, BF16 = 0, 30
LAYER_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def one(self, code):
        value, = struct.unpack_from(code, self.data, self.at)
        self.at += struct.calcsize(code)
        return value

    def string(self):
        n = self.one("<Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            item, n = self.one("<I"), self.one("<Q")
            return [self.value(item) for _ in range(n)]
        return self.one(SCALARS[kind])


def read_gguf(path):
    """(facts, {name: (type, shape as PyTorch says it, bytes)})"""
    with open(path, "rb") as f:
        r = Reader(f.read())
    r.at = 8
    n_tensors, n_facts = r.one("<Q"), r.one("<Q")
    facts = {}
    for _ in range(n_facts):
        key = r.string()
        facts[key] = r.value(r.one("<I"))
    entries = []
    for _ in range(n_tensors):
        name = r.string()
        shape = [r.one("<Q") for _ in range(r.one("<I"))][::-1]
        entries.append((name, shape, r.one("<I"), r.one("<Q")))
    start, out = -(-r.at // facts["general.alignment"]) * facts["general.alignment"], {}
    for name, shape, kind, offset in entries:
        n = {F32: 4, BF16: 2}[kind]
        for dim in shape:
            n *= dim
        out[name] = (kind, shape, r.data[start + offset:start + offset + n])
    return facts, out


def read_safetensors(path):
    with open(path, "rb") as f:
        data = f.read()
    n, = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + n])
    return {name: (entry["shape"], data[8 + n + entry["data_offsets"][0]:8 + n + entry["data_offsets"][1]])
            for name, entry in header.items() if name != "__metadata__"}


def folder_name(name):
    """The folder's name of a GGUF tensor."""
    stem = name.removesuffix(".weight")
    if stem in ("token_embd", "output_norm"):
        return {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[stem] + ".weight"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"


def pairs_together(blob, shape, n_heads):
    """The rows of each head from halves to neighbours."""
    row_bytes, half = len(blob) // shape[0], shape[0] // n_heads // 2
    row = lambda i: blob[i * row_bytes:(i + 1) * row_bytes]
    order = [h * 2 * half + i + side * half for h in range(n_heads) for i in range(half) for side in (0, 1)]
    return b"".join(row(i) for i in order)


def as_f32(blob):
    return b"".join(b"\0\0" + blob[i:i + 2] for i in range(0, len(blob), 2))


def check(folder):
    facts, gguf = read_gguf(os.path.join(folder, "tiny-kjv.gguf"))
    tensors = read_safetensors(os.path.join(folder, "tiny-kjv", "model.safetensors"))
    heads = {"attn_q": facts["llama.attention.head_count"], "attn_k": facts["llama.attention.head_count_kv"]}
    findings = [] if len(gguf) == len(tensors) else ["the files differ in their number of tensors"]
    for name, (kind, shape, blob) in gguf.items():
        wanted_shape, wanted = tensors[folder_name(name)]
        for part, n_heads in heads.items():
            if f".{part}." in name:
                wanted = pairs_together(wanted, wanted_shape, n_heads)
        if shape != wanted_shape or blob != (as_f32(wanted) if kind == F32 else wanted):
            findings.append(f"{name}: differs from {folder_name(name)}")
        if len(shape) == 2 and shape[1] % 256:
            findings.append(f"{name}: rows of {shape[1]} are no multiple of 256")
    with open(os.path.join(folder, "tiny-kjv", "vocab_spm.json"), encoding="utf-8") as f:
        if json.load(f)["tokens"] != facts["tokenizer.ggml.tokens"]:
            findings.append("the vocabularies differ")
    for where in ("tiny-kjv.gguf", "tiny-kjv/model.safetensors"):
        if os.path.getsize(os.path.join(folder, where)) > MAX_BYTES:
            findings.append(f"{where}: over {MAX_BYTES} bytes")
    return findings


if __name__ == "__main__":
    sys.exit(tree.finish(check(sys.argv[1])))
