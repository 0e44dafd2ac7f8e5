"""What the lints read: the C files of the tree, a file as lines, and how a finding is said."""
import os
import sys

FOLDERS = ("kernels", "artifact", "statistics", "quant", "ipc", "cache", "client", "daemon", "tests")


def c_files(root, folders=FOLDERS, endings=(".c", ".h", ".def", ".inc")):
    """Paths relative to @root of the C files below @folders, sorted."""
    found = []
    for folder in folders:
        for where, below, names in os.walk(os.path.join(root, folder)):
            below.sort()
            found += [os.path.relpath(os.path.join(where, n), root) for n in names if n.endswith(endings)]
    return sorted(found)


def lines_of(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as f:
        return f.read().split("\n")


def finish(findings):
    """Prints what was found; the exit code."""
    for finding in findings:
        print(finding, file=sys.stderr)
    return 1 if findings else 0
