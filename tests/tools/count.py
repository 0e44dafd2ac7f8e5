#!/usr/bin/env python3
"""Counts what meson ran and says it in one line: N passed, N failed, N skipped.

usage: count.py (LABEL=LOG=EXIT-STATUS | "left out=WHAT")...
LOG is a run's testlog.junit.xml, where every test case of a TAP program has its own entry; beside it stands LOG with
.txt instead of .junit.xml, for people. A test that cannot run here prints a line with "left out"; each such line counts
as one that was skipped. A run that failed as a whole (meson's exit status) never counts as passed, whatever its log says.
"""
import os
import re
import sys
import xml.etree.ElementTree as ET

_LEFT_OUT = re.compile(r"^(?:# )?(.*\bleft out\b.*)$", re.MULTILINE)


def outcome(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def read_log(path):
    """[(suite, test, outcome)] and the set of lines that say what was left out."""
    cases, left_out = [], set()
    for suite in ET.parse(path).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            cases.append((suite.get("name"), case.get("name"), outcome(case)))
        left_out.update(_LEFT_OUT.findall("".join(suite.itertext())))
    return cases, left_out


def count_run(label, log, status):
    cases, left_out = read_log(log) if os.path.exists(log) else ([], set())
    counts = {kind: sum(1 for case in cases if case[2] == kind) for kind in ("passed", "failed", "skipped")}
    shown = log.replace(".junit.xml", ".txt")
    if status != "0" and counts["failed"] == 0:
        counts["failed"] = 1
        print(f"failed: {label}: the run ended with '{status}', see {shown}")
    for suite, name, kind in cases:
        if kind == "failed":
            print(f"failed: {label}: {suite}: {name}, see {shown}")
        elif kind == "skipped":
            print(f"left out: {label}: {suite}: {name}")
    for text in sorted(left_out):
        print(f"left out: {label}: {text.removeprefix('left out: ')}")
    counts["skipped"] += len(left_out)
    print(f"{label}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts


def main(runs):
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for run in runs:
        label, rest = run.split("=", 1)
        if label == "left out":
            print(f"left out: {rest}")
            total["skipped"] += 1
            continue
        for kind, n in count_run(label, *rest.split("=")).items():
            total[kind] += n
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 0 if total["failed"] == 0 and total["passed"] > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
