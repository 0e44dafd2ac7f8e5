#!/usr/bin/env python3
"""Every C file is as clang-format writes it (.clang-format at the top). With --fix, makes it so.

usage: format.py [--fix] ROOT CLANG-FORMAT
"""
import subprocess
import sys

import tree


def check(root, clang_format):
    paths = tree.c_files(root, endings=(".c", ".h"))
    done = subprocess.run([clang_format, "--dry-run", "-Werror", *paths], cwd=root, capture_output=True, text=True)
    faults = [line for line in done.stderr.splitlines() if "error:" in line]
    return faults or ([done.stderr] if done.returncode else [])


def fix(root, clang_format):
    subprocess.run([clang_format, "-i", *tree.c_files(root, endings=(".c", ".h"))], cwd=root, check=True)
    return []


if __name__ == "__main__":
    step = fix if sys.argv[1] == "--fix" else check
    sys.exit(tree.finish(step(*sys.argv[-2:])))
