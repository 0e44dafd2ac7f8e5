"""Writers of the two files that ship: a Hugging Face folder (safetensors) and a GGUF, with the same bf16 weights.

safetensors keeps the half-split rotary order of q_proj and k_proj; GGUF wants neighbouring pairs, so these two are
permuted. Norms are bf16 in the folder and f32 in the GGUF, as converters for llama.cpp leave them.
"""
import json
import os
import struct

import numpy as np
import torch

ALIGNMENT = 32
GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY = 4, 5, 6, 7, 8, 9
GGML_F32, GGML_BF16 = 0, 30
FILE_TYPE_BF16 = 32
GGUF_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def bf16_bits(tensor):
    """u16 array of the tensor rounded to bf16, nearest even."""
    return tensor.detach().to(torch.bfloat16).view(torch.int16).numpy().view("<u2")


def write_folder(folder, weights, config, vocabulary):
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(weights):
        blob = bf16_bits(weights[name]).tobytes()
        shape = list(weights[name].shape)
        header["model." + name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    facts = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **config, "hidden_act": "silu",
             "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}
    write_json(os.path.join(folder, "config.json"), facts, indent=1)
    vocab = {"tokens": vocabulary.pieces, "scores": vocabulary.scores, "types": vocabulary.types}
    write_json(os.path.join(folder, "vocab_spm.json"), vocab)
    with open(os.path.join(folder, "tokenizer.model"), "wb") as f:
        f.write(sentencepiece_model(vocabulary))


def write_json(path, value, indent=None):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=indent)
        f.write("\n")


def _varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out) + bytes([n])


def _field(number, blob):
    return _varint(number << 3 | 2) + _varint(len(blob)) + blob


def sentencepiece_model(vocabulary):
    """ModelProto of sentencepiece_model.proto: pieces = 1 {piece = 1, score = 2, type = 3}; trainer_spec = 2."""
    out = b""
    for piece, score, kind in zip(vocabulary.pieces, vocabulary.scores, vocabulary.types):
        body = _field(1, piece.encode()) + b"\x15" + struct.pack("<f", score)
        out += _field(1, body + (b"\x18" + _varint(kind) if kind != 1 else b""))
    trainer = b"\x18" + _varint(2) + b"\x20" + _varint(len(vocabulary.pieces)) + b"\x98\x02\x01"
    normalizer = _field(1, b"identity") + b"\x18\x01\x20\x00\x28\x01"
    return out + _field(2, trainer) + _field(3, normalizer)  # model_type BPE, vocab_size, byte_fallback


def _string(text):
    blob = text.encode()
    return struct.pack("<Q", len(blob)) + blob


def _value(kind, value):
    if kind == GGUF_STRING:
        return _string(value)
    codes = {GGUF_U32: "<I", GGUF_I32: "<i", GGUF_F32: "<f", GGUF_BOOL: "<B"}
    return struct.pack(codes[kind], value)


def _array(key, kind, values):
    head = _string(key) + struct.pack("<IIQ", GGUF_ARRAY, kind, len(values))
    return head + b"".join(_value(kind, v) for v in values)


def gguf_facts(name, c, vocabulary):
    facts = [
        ("general.architecture", GGUF_STRING, "llama"), ("general.name", GGUF_STRING, name),
        ("general.license", GGUF_STRING, "mit"), ("general.file_type", GGUF_U32, FILE_TYPE_BF16),
        ("general.alignment", GGUF_U32, ALIGNMENT),
        ("llama.context_length", GGUF_U32, c["max_position_embeddings"]),
        ("llama.embedding_length", GGUF_U32, c["hidden_size"]),
        ("llama.block_count", GGUF_U32, c["num_hidden_layers"]),
        ("llama.feed_forward_length", GGUF_U32, c["intermediate_size"]),
        ("llama.attention.head_count", GGUF_U32, c["num_attention_heads"]),
        ("llama.attention.head_count_kv", GGUF_U32, c["num_key_value_heads"]),
        ("llama.attention.layer_norm_rms_epsilon", GGUF_F32, c["rms_norm_eps"]),
        ("llama.rope.dimension_count", GGUF_U32, c["head_dim"]),
        ("llama.rope.freq_base", GGUF_F32, c["rope_theta"]), ("llama.vocab_size", GGUF_U32, c["vocab_size"]),
        ("tokenizer.ggml.model", GGUF_STRING, "llama"), ("tokenizer.ggml.pre", GGUF_STRING, "default"),
        ("tokenizer.ggml.bos_token_id", GGUF_U32, 1), ("tokenizer.ggml.eos_token_id", GGUF_U32, 2),
        ("tokenizer.ggml.unknown_token_id", GGUF_U32, 0), ("tokenizer.ggml.add_bos_token", GGUF_BOOL, 1),
        ("tokenizer.ggml.add_eos_token", GGUF_BOOL, 0), ("tokenizer.ggml.add_space_prefix", GGUF_BOOL, 1),
    ]
    out = [_string(key) + struct.pack("<I", kind) + _value(kind, value) for key, kind, value in facts]
    out.append(_array("tokenizer.ggml.tokens", GGUF_STRING, vocabulary.pieces))
    out.append(_array("tokenizer.ggml.scores", GGUF_F32, vocabulary.scores))
    out.append(_array("tokenizer.ggml.token_type", GGUF_I32, vocabulary.types))
    return out


def pairs_together(weight, n_heads):
    """Rows (i, i + head_dim / 2) of each head become rows (2i, 2i + 1): llama.cpp's rotary order."""
    rows, columns = weight.shape
    return weight.view(n_heads, 2, rows // n_heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def gguf_tensors(weights, c):
    """[(name, ggml type, torch shape, bytes)]: embedding, layers in order, output norm."""
    out = []
    for name, weight in weights.items():
        stem = name.removesuffix(".weight")
        if stem == "embed_tokens":
            target = "token_embd"
        elif stem == "norm":
            target = "output_norm"
        else:
            _, layer, part = stem.split(".", 2)
            target = f"blk.{layer}.{GGUF_NAMES[part]}"
        if stem.endswith("q_proj"):
            weight = pairs_together(weight, c["num_attention_heads"])
        if stem.endswith("k_proj"):
            weight = pairs_together(weight, c["num_key_value_heads"])
        bits = bf16_bits(weight)
        if weight.dim() == 1:
            blob, kind = (bits.astype("<u4") << 16).tobytes(), GGML_F32
        else:
            blob, kind = bits.tobytes(), GGML_BF16
        out.append((target + ".weight", kind, weight.shape, blob))
    return out


def write_gguf(path, name, weights, config, vocabulary):
    facts, tensors = gguf_facts(name, config, vocabulary), gguf_tensors(weights, config)
    table, at = b"", 0
    for tensor, kind, shape, blob in tensors:
        table += _string(tensor) + struct.pack("<I", len(shape))
        table += b"".join(struct.pack("<Q", n) for n in reversed(shape)) + struct.pack("<IQ", kind, at)
        at += len(blob) + -len(blob) % ALIGNMENT
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts)) + b"".join(facts) + table
    with open(path, "wb") as f:
        f.write(head + b"\0" * (-len(head) % ALIGNMENT))
        for _, _, _, blob in tensors:
            f.write(blob + b"\0" * (-len(blob) % ALIGNMENT))
