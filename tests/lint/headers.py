#!/usr/bin/env python3
"""Each installed header compiles alone, as C11 and as C++11, without a warning.

usage: headers.py ROOT C-COMPILER...
The C++ compiler is the C compiler's sibling (gcc: g++, clang: clang++).
"""
import glob
import os
import shutil
import subprocess
import sys

import tree

FOLDERS = ("kernels/include", "client/include")
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]


def sibling(compiler):
    name = os.path.basename(compiler[-1]).replace("gcc", "g++").replace("clang", "clang++")
    return shutil.which({"cc": "c++"}.get(name, name))


def compile_alone(root, command, language, header):
    include = [part for folder in FOLDERS for part in ("-I", os.path.join(root, folder))]
    name = os.path.relpath(header, os.path.dirname(os.path.dirname(header)))
    source = f"#include <{name}>\n#include <{name}>\nint main(void) {{ return 0; }}\n"
    done = subprocess.run([*command, *language, *WARNINGS, *include, "-"], input=source, capture_output=True, text=True)
    return [f"{name} as {language[-1]}: {done.stderr.strip()}"] if done.returncode else []


def check(root, compiler):
    findings, cxx = [], sibling(compiler)
    headers = [h for folder in FOLDERS for h in sorted(glob.glob(os.path.join(root, folder, "quantd", "*.h")))]
    if not headers:
        return ["no installed header found"]
    if not cxx:
        return [f"no C++ compiler beside {compiler[-1]}"]
    for header in headers:
        findings += compile_alone(root, compiler, ["-x", "c", "-std=c11"], header)
        findings += compile_alone(root, [cxx], ["-x", "c++", "-std=c++11"], header)
    return findings


if __name__ == "__main__":
    sys.exit(tree.finish(check(sys.argv[1], sys.argv[2:])))
