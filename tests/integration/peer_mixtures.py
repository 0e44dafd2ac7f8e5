#!/usr/bin/env python3
"""Every tensor of every scheme has the type and the bytes that llama.cpp gives it, whatever the model; what it refuses we refuse.

usage: peer_mixtures.py ROOT WORKER PEER-PROGRAMS-FOLDER [--long | --short]
Models: those of tests/tools/mixed_models.py. --long adds the shipped model and ../shared/models/stories260K: every scheme, and a
table of perplexities, where our file and the peer's must agree to the last digit.
"""
import os
import re
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import engines
import gguf
import imatrix
import mixed_models
import tap

ROOT, WORKER, PEERS = sys.argv[1:4]
LEFT_OUT = 77
SHORT = "--short" in sys.argv # every model with a few of the schemes, each with others
SCHEMES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q2_k_s", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s",
           "q4_k_m", "q5_k_s", "q5_k_m", "q6_k", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4_moe")
# Words as peer_quantize takes them, and where they are judged.
ASKED = {
    "gqa4": (
        ("q4_k_m", "tensor=attn_v=q8_0"), ("q4_k_m", r"tensor=blk\.[01]\.=q6_k", "tensor=ffn_down=q4_0"), ("q4_0", "output=q8_0"),
        ("q3_k_m", "embedding=q4_0", "output=q5_k"), ("q5_k_m", "leave_output"), ("q4_k_m", "output=f16", "embedding=bf16"),
        ("q4_k_s", "pure", "output=q8_0"), ("q4_k_s", "pure", "tensor=ffn=q5_0"), ("q2_k", "tensor=ffn_(up|gate)=f16"),
        ("q4_k_s", r"tensor=^blk\.0\.attn_v=q8_0"), ("q2_k_s", "tensor=^blk=q4_k", "output=q6_k"), ("f16", "output=q8_0"),
        ("tq1_0", "tensor=attn=iq4_xs"), ("iq4_nl", "tensor=1.*weight$=q5_1"), ("q8_0", "tensor=token_embd=q4_k"),
    ),
    "gqa8-tied": (("q4_k_m", "output=q8_0"), ("q4_k_m", "pure", "output=q8_0"), ("q4_k_m", "embedding=q5_0", "output=q8_0"),
                  ("q4_k_m", "tensor=token_embd=q3_k"), ("q6_k", "leave_output")),
    "extras": (("q4_k_m", "embedding=q8_0"), ("q4_k_m", "embedding=q8_0", "tensor=per_layer_token=q5_0"),
               ("q3_k_l", r"tensor=^v\.=q8_0"), ("q4_k_s", "pure")),
    "rows-320-172": (("q4_k_m", "tensor=ffn=q6_k"), ("q4_0", "tensor=attn=iq4_xs"), ("q8_0", "tensor=.=q3_k")),
    "experts-8": (("q4_k_m", "tensor=ffn_down_exps=q8_0"), ("mxfp4_moe", "tensor=attn_k=q4_k"), ("mxfp4_moe", "output=q6_k")),
}
OPTIONS = {"pure": "--pure", "leave_output": "--leave-output", "requantize": "--allow-requantize"}
OPTION_OF = {"output": "--output-type", "embedding": "--embedding-type", "tensor": "--tensor", "imatrix": "--imatrix"}
# With an importance matrix the mixtures are others.
WEIGHED = {"q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs"}
WEIGHTED = ("q4_0", "q5_0", "q2_k_s", "q2_k", "q3_k_m", "q4_k_m", "iq4_nl", "iq4_xs", "mxfp4_moe")


def option(word):
    key, _, value = word.partition("=")
    return [OPTIONS[word]] if word in OPTIONS else [OPTION_OF[key], value]


def ours(source, out, scheme, words):
    command = [WORKER, "--direct", source, "--scheme", scheme, *(o for w in words for o in option(w))]
    plan = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    made = subprocess.run([*command, "--force", "--quiet", "--threads", "1", "-o", out], capture_output=True, text=True)
    return plan, made


def theirs(source, out, scheme, words):
    weighted = {"PEER_IMPORTANCE": w.partition("=")[2] + ".raw" for w in words if w.startswith("imatrix=")}
    command = [os.path.join(PEERS, "peer_quantize"), source, out, scheme, *(w for w in words if not w.startswith("imatrix="))]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **weighted})


def types_of_plan(text):
    """{tensor: type} of a printed plan, and the size it foretells."""
    types = dict(re.findall(r"^(\S+) .* -> (\S+) +\d+ at ", text, re.M))
    return types, int(re.search(r"file of (\d+) bytes$", text, re.M).group(1))


def compare_types(planned, tensors):
    wrong = [f"{name}: {planned.get(name)}, the peer's {gguf.TYPES[t.kind][0]}" for name, t in tensors.items()
             if planned.get(name) != gguf.TYPES[t.kind][0]]
    if wrong or len(planned) != len(tensors):
        raise AssertionError(f"{len(wrong)} of {len(tensors)} tensors have other types: {'; '.join(wrong[:8])}")


def compare_bytes(out, other, n_planned):
    (_, a), (_, b) = gguf.read(out), gguf.read(other)
    wrong = [f"{n} ({gguf.TYPES[a[n].kind][0]})" for n in b if a[n] != b[n]]
    if wrong:
        raise AssertionError(f"{len(wrong)} of {len(b)} tensors have other bytes: {', '.join(wrong[:8])}")
    if os.path.getsize(out) != n_planned:
        raise AssertionError(f"{os.path.getsize(out)} bytes, the plan said {n_planned}")


def judge(folder, source, scheme, words):
    """None, or what we cannot do yet."""
    name = f"{os.path.basename(source)}-{scheme}-{abs(hash(words))}"
    out, other = os.path.join(folder, name + ".ours"), os.path.join(folder, name + ".theirs")
    peer = theirs(source, other, scheme, words)
    plan, made = ours(source, out, scheme, words)
    if peer.returncode:
        if plan.returncode == 0:
            raise AssertionError(f"the peer refuses, we do not: {peer.stderr.strip()[-200:]}")
        return None
    if plan.returncode:
        raise AssertionError(f"refused, the peer makes it: {plan.stderr.strip()}")
    types, n_bytes = types_of_plan(plan.stdout)
    compare_types(types, gguf.read(other)[1])
    if made.returncode and "no encoder" in made.stderr:
        return made.stderr.strip().split(": ")[-1]
    if made.returncode:
        raise AssertionError(made.stderr.strip())
    unweighted = {kind for name, kind, reason in re.findall(r"^(blk\S+) .* -> (\S+) +\d+ at \d+ +(.*)$", plan.stdout, re.M)
                  if kind in WEIGHED and "; weighted" not in reason}
    if unweighted and any(w.startswith("imatrix=") for w in words):
        return f"no encoder with importance for {', '.join(sorted(unweighted))}"
    compare_bytes(out, other, n_bytes)
    for path in (out, other):
        os.remove(path)
    return None


def case(folder, source, label, scheme, words, count):
    def check():
        missing = judge(folder, source, scheme, words)
        if missing:
            tap.left_out(f"bytes of {label} {scheme}", missing)
        else:
            count["same"] += 1
    count["all"] += 1
    tap.case(" ".join([label, scheme, *(w for w in words if not w.startswith("imatrix="))]), check)


def synthetic(folder, count):
    for i, model in enumerate(mixed_models.models()):
        source = os.path.join(folder, model.name)
        mixed_models.write(model, source)
        for scheme in SCHEMES[i % 16::16] if SHORT else SCHEMES:
            case(folder, source, model.name, scheme, (), count)
        for scheme, *words in ASKED.get(model.name, ()):
            case(folder, source, model.name, scheme, tuple(words), count)


def weighted(folder, count):
    for name in ("gqa4", "rows-320-172", "experts-8", "experts-8-odd"):
        source = os.path.join(folder, name)
        matrix = source + ".imatrix"
        imatrix.make(source, matrix, seed=5)
        imatrix.write_raw(matrix + ".raw", imatrix.read(matrix))
        for scheme in WEIGHTED:
            case(folder, source, f"{name} weighted", scheme, (f"imatrix={matrix}",), count)


def again(folder, count):
    """From a quantized source: refused, and made where it is asked for."""
    first = os.path.join(folder, "quantized")
    for scheme in ("q8_0", "q6_k"):
        made = theirs(os.path.join(folder, "gqa4"), first, scheme, ())  # the peer cannot keep the alignment of ours
        if made.returncode:
            raise RuntimeError(made.stderr.strip())
        for to in ("q4_k_m", "q8_0", "q4_0"):
            for words in ((), ("requantize",)):
                case(folder, first, f"from {scheme} to", to, words, count)


# ---- the long form ----


def perplexity(text, path):
    done = subprocess.run([os.path.join(PEERS, "peer_perplexity"), text, path], capture_output=True, text=True, check=True)
    return done.stdout.split("perplexity")[1].strip()


def same_perplexity(folder, name, source, text, scheme):
    """One row of the table; our file and the peer's."""
    out, other = os.path.join(folder, "ours.gguf"), os.path.join(folder, "theirs.gguf")
    if theirs(source, other, scheme, ()).returncode:
        return
    _, made = ours(source, out, scheme, ())
    if made.returncode:
        tap.left_out(f"perplexity of {name} {scheme}", made.stderr.strip())
        return
    a, b = perplexity(text, out), perplexity(text, other)
    print(f"# {name:12} {scheme:10} {os.path.getsize(out):9} bytes  perplexity {a}  the peer's {b}")
    if a != b:
        raise AssertionError(f"perplexity {a}, the peer's file: {b}")


def whole_models(folder, count):
    models = engines.models(ROOT)
    if "stories260K" not in models:
        tap.left_out("peer_mixtures stories260K", "no ../shared/models/stories260K")
    for name, (source, text) in models.items():
        for scheme in SCHEMES:
            case(folder, source, name, scheme, (), count)
            case(folder, source, name, scheme, ("pure",), count)
            tap.case(f"{name} {scheme}: perplexity", lambda: same_perplexity(folder, name, source, text, scheme))


def peer_is_there():
    probe = os.path.join(PEERS, "peer_perplexity")
    return os.path.exists(probe) and subprocess.run([probe, "/dev/null", "/dev/null"], capture_output=True).returncode != LEFT_OUT


def main():
    if not peer_is_there():
        tap.left_out("peer_mixtures", "no peer (./dev peers fetches it)")
        tap.end()
    count = {"all": 0, "same": 0}
    with tempfile.TemporaryDirectory() as folder:
        synthetic(folder, count)
        weighted(folder, count)
        again(folder, count)
        if "--long" in sys.argv[4:]:
            whole_models(folder, count)
    print(f"# {count['same']} of {count['all']} files are the peer's, tensor by tensor, or are refused by both")
    tap.end()


main()
