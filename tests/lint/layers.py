#!/usr/bin/env python3
"""Reads every #include line against the layer table of docs/architecture.md, section 4, and docs/adr.

usage: layers.py ROOT
The first entry of LAYERS whose folder holds a file says which folders that file may include from; OUTSIDE says which
folders may include an outside library's header.
"""
import re
import sys

import tree

PUBLIC = "client/include/"  # <quantd/quantd.h> and what it includes
BASE = "kernels/include/"   # <quantd/error.h>, <quantd/dtype.h>: below everything

LAYERS = [
    # folder               may include from
    ("kernels/core/",      ("kernels/core/", BASE)),
    ("kernels/include/",   (BASE,)),
    ("kernels/",           ("kernels/",)),
    ("artifact/",          ("kernels/", "artifact/")),
    ("statistics/",        ("kernels/", "artifact/", "statistics/")),
    ("quant/",             ("kernels/", "artifact/", "statistics/", "quant/")),
    ("cache/",             ("kernels/", "artifact/", "quant/", "cache/")),
    ("ipc/",               ("kernels/core/", BASE, "ipc/")),
    ("client/include/",    (BASE, PUBLIC)),
    ("client/cli/",        ("kernels/core/", BASE, PUBLIC, "client/cli/")),
    ("client/examples/",   (BASE, PUBLIC)),
    ("client/",            ("kernels/", "artifact/", "statistics/", "ipc/", "client/")),
    ("daemon/worker/",     ("kernels/", "artifact/", "statistics/", "quant/", "ipc/", "daemon/worker/")),
    ("daemon/",            ("kernels/", "artifact/", "statistics/", "quant/", "cache/", "ipc/", "daemon/")),
]
NEVER = [
    # a file below         never includes
    ("client/",            "client/cli/"),
    ("daemon/",            "daemon/worker/"),
]
OUTSIDE = [
    # header                            may be included below
    (r"uv\.h",                          ("daemon/",)),
    (r"cmocka\.h",                      ("tests/test.h",)),
    (r"sodium(/.*)?\.h|sodium\.h",      ("artifact/", "cache/", "client/")),
    (r"openssl/.*",                     ("artifact/", "cache/")),
    (r"msgpack(/.*)?\.h",               ("artifact/", "quant/", "cache/", "ipc/")),
    (r"zlib\.h|png\.h|jpeglib\.h",    ("quant/calib/",)),
    (r"jansson\.h",                     ("quant/format/", "client/cli/", "daemon/")),
    (r"ini\.h",                         ("daemon/",)),
    (r"seccomp\.h",                     ("daemon/worker/",)),
    (r"systemd/.*",                     ()),
]
_INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def target_of(root_files, name):
    """The path in the tree that an include names, or None for an outside header."""
    for prefix in ("", BASE, PUBLIC):
        if prefix + name in root_files:
            return prefix + name
    return None


def may_include(path, target):
    for folder, wall in NEVER:
        if path.startswith(folder) and not path.startswith(wall) and target.startswith(wall):
            return False
    for folder, allowed in LAYERS:
        if path.startswith(folder):
            return target.startswith(allowed)
    return True  # tests may look everywhere


def check_include(path, mark, name, root_files):
    target = target_of(root_files, name)
    if target:
        return None if may_include(path, target) else f"'{name}' lies above this folder"
    if mark == '"':
        return f"'{name}' is not in the tree: project headers are named by their full path"
    for pattern, allowed in OUTSIDE:
        if re.fullmatch(pattern, name) and not path.startswith(allowed + ("tests/",) * (name != "cmocka.h")):
            return f"<{name}> belongs to {' '.join(allowed) or 'nobody'}"
    return None


def check(root):
    files = tree.c_files(root)
    known, findings = set(files), []
    for path in files:
        for number, line in enumerate(tree.lines_of(root, path), 1):
            match = _INCLUDE.match(line)
            fault = match and check_include(path, match.group(1), match.group(2), known)
            if fault:
                findings.append(f"{path}:{number}: {fault}")
    return findings


if __name__ == "__main__":
    sys.exit(tree.finish(check(sys.argv[1])))
