#!/usr/bin/env python3
"""What the coding guide says and a machine can see: widths, function lengths, TODOs, printing, secrets, READMEs.

usage: style.py ROOT
"""
import os
import re
import sys

import tree

MAX_COLUMNS = 120
MAX_FUNCTION_LINES = 70
MAX_README_LINES = 40
LIBRARIES = ("kernels/", "artifact/", "quant/", "ipc/", "cache/", "client/")  # return errors, never print
PROGRAMS = ("client/cli/", "client/examples/")
_PRINTS = re.compile(r"\b(?:v?printf|puts|perror|putchar)\s*\(|\bstd(?:out|err)\b")
_TODO = re.compile(r"\b(?:TODO|FIXME|XXX)\b(?!\(#?\d+\))")
_SECRET = re.compile(r"\bcrypto_sign_(?:detached|seed_keypair|keypair|SECRETKEYBYTES|ed25519_sk_\w+)\b|\bcrypto_sign\s*\(")
# Sizes read from a file are computed by kernels/core/checked.h: a bare product of two of them is a finding.
_SIZE = r"(?:\w+(?:->|\.))*(?:n_\w+|\w+_bytes|\w*offset|ne\[\w+\]|shape\[\w+\]|dims\[\w+\])"
_PRODUCT = re.compile(rf"\b{_SIZE}\s\*\s{_SIZE}")
_COMMENT = re.compile(r"/\*.*?\*/|//.*$|^\s*\*.*$|^\s*/\*.*$")


def code_of(line):
    """The line without its comments and its string literals."""
    return re.sub(r'"(?:\\.|[^"\\])*"', '""', _COMMENT.sub("", line))


def check_line(path, line):
    if len(line) > MAX_COLUMNS:
        yield f"{len(line)} columns, at most {MAX_COLUMNS}"
    if "\t" in line or line != line.rstrip():
        yield "a tab, a carriage return or a blank at the end"
    if _TODO.search(line):
        yield "a TODO names its issue: TODO(12)"
    code = code_of(line)
    if path.startswith(LIBRARIES) and not path.startswith(PROGRAMS) and _PRINTS.search(code):
        yield "libraries return errors, they do not print"
    if path != "cache/sign.c" and not path.startswith("tests/") and _SECRET.search(code):
        yield "only cache/sign.c sees a secret key"
    if path.startswith("quant/format/") and _PRODUCT.search(code):
        yield "sizes from a file are multiplied by checked_mul()"


def check_functions(lines):
    """A function is a brace alone in the first column, up to the next closing one there."""
    opened = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            opened = number
        elif line.startswith("}") and opened:
            if number - opened - 1 > MAX_FUNCTION_LINES:
                yield opened, f"a function of {number - opened - 1} lines, at most {MAX_FUNCTION_LINES}"
            opened = None


def check_readme(root, folder):
    path = os.path.join(folder, "README.md")
    if not os.path.exists(os.path.join(root, path)):
        return [f"{path}: missing: purpose, what it may include, where to start reading, how to test it"]
    n_lines = len(tree.lines_of(root, path)) - 1
    return [f"{path}: {n_lines} lines, at most {MAX_README_LINES}"] if n_lines > MAX_README_LINES else []


def check(root, readmes=tree.FOLDERS):
    findings = []
    for path in tree.c_files(root):
        lines = tree.lines_of(root, path)
        for number, line in enumerate(lines, 1):
            findings += [f"{path}:{number}: {fault}" for fault in check_line(path, line)]
        findings += [f"{path}:{number}: {fault}" for number, fault in check_functions(lines)]
        if lines[-1] != "":
            findings.append(f"{path}: no line break at the end")
    for folder in readmes:
        if os.path.exists(os.path.join(root, folder, "README.md")):
            findings += check_readme(root, folder)
    return findings


if __name__ == "__main__":
    sys.exit(tree.finish(check(sys.argv[1])))
