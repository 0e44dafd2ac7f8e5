#!/usr/bin/env python3
"""The shipped GGUF and safetensors folder hold the same weights, in their own orders, and stay small.

usage: shipped_model.py MODELS-FOLDER
"""
import json
import os
import struct
import sys

import tree

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import gguf

MAX_BYTES = 3_000_000
LAYER_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


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
    facts, ours = gguf.read(os.path.join(folder, "tiny-kjv.gguf"))
    tensors = read_safetensors(os.path.join(folder, "tiny-kjv", "model.safetensors"))
    heads = {"attn_q": facts["llama.attention.head_count"], "attn_k": facts["llama.attention.head_count_kv"]}
    findings = [] if len(ours) == len(tensors) else ["the files differ in their number of tensors"]
    for name, reversed_shape, kind, blob in ours.values():
        shape = reversed_shape[::-1]
        wanted_shape, wanted = tensors[folder_name(name)]
        for part, n_heads in heads.items():
            if f".{part}." in name:
                wanted = pairs_together(wanted, wanted_shape, n_heads)
        if shape != wanted_shape or blob != (as_f32(wanted) if kind == gguf.F32 else wanted):
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
