"""Writes small GGUFs of many architectures, for judging which type a tensor gets: seeded weights, few rows, real names.

A model's matrices have as many columns as its architecture says and only a few rows: types follow from names, columns,
counts of heads, layers and experts, and from the order of names; the tensors are written in a seeded order.
"""
import array
import collections
import random
import struct

STRING, U32, F32 = 8, 4, 6
KINDS = {"f32": 0, "f16": 1}
ALIGNMENT = 32
ROWS = 3  # of every matrix

Model = collections.namedtuple("Model", "name arch facts tensors")  # tensors: {name: (kind, shape)}


def layer(i, columns, inner, names, kind):
    """The matrices of a layer; what begins with ffn_down has @inner columns."""
    return {f"blk.{i}.{n}.weight": (kind, [inner if n.startswith("ffn_down") else columns, ROWS]) for n in names}


def experts(i, columns, inner, n_experts, kind):
    shapes = {"ffn_up_exps": columns, "ffn_gate_exps": columns, "ffn_down_exps": inner}
    made = {f"blk.{i}.{n}.weight": (kind, [row, ROWS, n_experts]) for n, row in shapes.items()}
    return {**made, f"blk.{i}.ffn_gate_inp.weight": ("f32", [columns, n_experts])}


def make(name, arch, layers, columns, inner, heads, kv_heads, names, kind="f16", tied=False, n_experts=0, extra=()):
    facts = {"context_length": 64, "embedding_length": columns, "block_count": layers, "feed_forward_length": inner,
             "attention.head_count": heads, "attention.head_count_kv": kv_heads,
             "attention.layer_norm_rms_epsilon": 1e-5, "attention.layer_norm_epsilon": 1e-5}
    if n_experts:
        facts.update({"expert_count": n_experts, "expert_used_count": 2, "expert_feed_forward_length": inner})
    tensors = {"token_embd.weight": (kind, [columns, 2 * ROWS]), "output_norm.weight": ("f32", [columns])}
    if not tied:
        tensors["output.weight"] = (kind, [columns, 2 * ROWS])
    tensors.update({name: (kind, [columns, ROWS]) for name in extra})
    for i in range(layers):
        tensors[f"blk.{i}.attn_norm.weight"] = ("f32", [columns])
        tensors.update(layer(i, columns, inner, names, kind))
        if n_experts:
            tensors.update(experts(i, columns, inner, n_experts, kind))
    return Model(name, arch, facts, tensors)


ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output")
DENSE = ATTENTION + ("ffn_up", "ffn_gate", "ffn_down")
# What rules ask for by other names than a layer's.
EXTRA = ("per_layer_token_embd.weight", "position_embd.weight", "token_types.weight", "blk.0.ssm_conv1d.weight", "blk.0.ssm_in.weight",
         "blk.1.attn_kv_b.weight", "v.blk.0.attn_v.weight", "v.blk.0.ffn_down.weight", "v.patch_embd.weight", "mm.0.weight",
         "blk.2.ffn_down.scale", "blk.3.altup_proj.weight", "blk.1000.attn_v.weight", "blk.x.attn_v.weight", "cls.weight")
FUSED = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")


def models():
    return [
        make("gqa4", "llama", 12, 256, 512, 8, 2, DENSE),
        make("gqa8-tied", "llama", 12, 256, 512, 8, 1, DENSE, kind="f32", tied=True),
        make("gqa1-17-layers", "qwen3", 17, 256, 256, 4, 4, DENSE),
        make("rows-320-172", "llama", 12, 320, 172, 8, 8, DENSE, kind="f32"),
        make("rows-172-tied", "gemma", 6, 172, 320, 4, 1, DENSE, tied=True),
        make("experts-8", "llama", 12, 256, 512, 8, 2, ATTENTION, n_experts=8),
        make("experts-8-odd", "llama", 8, 320, 172, 8, 8, ATTENTION, n_experts=8, tied=True),
        make("experts-4", "qwen2moe", 9, 256, 256, 8, 2, ATTENTION + ("ffn_up_shexp", "ffn_down_shexp"), n_experts=4),
        make("70b", "llama", 80, 256, 256, 8, 1, ("attn_v", "attn_output", "ffn_down")),
        make("72b", "qwen2", 80, 256, 256, 8, 4, ("attn_v", "ffn_down")),
        make("65b", "llama", 80, 256, 256, 8, 8, ("attn_v", "ffn_down")),
        make("falcon", "falcon", 32, 256, 512, 8, 1, FUSED),
        make("falcon-tied", "falcon", 18, 256, 512, 8, 1, FUSED, tied=True),
        make("extras", "llama", 10, 256, 512, 8, 8, DENSE, extra=EXTRA),
        make("extras-tied", "llama", 10, 320, 512, 8, 2, DENSE, extra=EXTRA, tied=True),
        make("phi2", "phi2", 16, 256, 512, 8, 8, FUSED),
    ]


# ---- writing ----


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def fact(key, value):
    if isinstance(value, str):
        return text(key) + struct.pack("<I", STRING) + text(value)
    return text(key) + (struct.pack("<If", F32, value) if isinstance(value, float) else struct.pack("<II", U32, value))


def weights(name, kind, n):
    rng = random.Random(name)
    values = [rng.gauss(0, 0.5) for _ in range(n)]
    return array.array("f", values).tobytes() if kind == "f32" else struct.pack(f"<{n}e", *values)


def write(model, path):
    facts = {"general.architecture": model.arch, "general.name": model.name, "general.file_type": 1,
             **{f"{model.arch}.{key}": value for key, value in model.facts.items()}}
    names = sorted(model.tensors)
    random.Random(model.name).shuffle(names)
    infos, data = [], b""
    for name in names:
        kind, shape = model.tensors[name]
        n = 1
        for dim in shape:
            n *= dim
        infos.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, KINDS[kind], len(data)))
        data += weights(name, kind, n)
        data += bytes(-len(data) % ALIGNMENT)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(names), len(facts))
    head += b"".join(fact(key, value) for key, value in facts.items()) + b"".join(infos)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % ALIGNMENT) + data)
