#!/usr/bin/env python3
"""Counts what meson ran and says it in one line: N passed, N failed, N skipped.

usage: count.py (LABEL=LOG=EXIT-STATUS | "left out=WHAT")...
LOG.json is meson's log of a run: a line for each test program with its result and output. A program that speaks TAP
counts once for each of its tests, another once. A program that ended badly is a failure even where every test it told of
had passed: it may have died before the next. Output lines with "left out" say what could not run here; each counts as
skipped. A run that failed as a whole (meson's exit status) never counts as passed, whatever its log says.
"""
import json
import os
import re
import sys

_TAP = re.compile(r"^(not )?ok\b[ ]*\d*(?: - )?([^#\n]*)(#\s*(?:SKIP|TODO).*)?$", re.MULTILINE | re.IGNORECASE)
_LEFT_OUT = re.compile(r"^(?:# )?(.*\bleft out\b.*)$", re.MULTILINE)
_GOOD = ("OK", "SKIP", "EXPECTEDFAIL")


class Counts:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, 0, 0

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def count_program(label, log, test, counts):
    """Adds one test program of the log and names what failed or was left out."""
    stdout, failed_before = test.get("stdout") or "", counts.failed
    cases = _TAP.findall(stdout)
    for bad, name, skip in cases:
        if bad and not skip:
            counts.failed += 1
            print(f"failed: {label}: {test['name']}: {name.strip()}, see {log}.txt")
        elif skip:
            counts.skipped += 1
            print(f"left out: {label}: {test['name']}: {name.strip()}")
        else:
            counts.passed += 1
    if test["result"] not in _GOOD and counts.failed == failed_before:
        counts.failed += 1
        print(f"failed: {label}: {test['name']}: {test['result']}, status {test.get('returncode')}, see {log}.txt")
    lines = sorted(set(_LEFT_OUT.findall(stdout + "\n" + (test.get("stderr") or ""))))
    for line in lines:
        print(f"left out: {label}: {line.removeprefix('left out: ')}")
    counts.skipped += len(lines)
    if not cases and test["result"] == "OK":
        counts.passed += 1
    if not cases and test["result"] == "SKIP" and not lines:
        counts.skipped += 1
        print(f"left out: {label}: {test['name']}")


def count_run(label, log, status):
    counts = Counts()
    if os.path.exists(log + ".json"):
        with open(log + ".json", encoding="utf-8") as f:
            for line in f:
                count_program(label, log, json.loads(line), counts)
    if status != "0" and counts.failed == 0:
        counts.failed = 1
        print(f"failed: {label}: the run ended with '{status}', see {log}")
    print(f"{label}: {counts}")
    return counts


def main(runs):
    total = Counts()
    for run in runs:
        label, rest = run.split("=", 1)
        if label == "left out":
            print(f"left out: {rest}")
            total.skipped += 1
        else:
            total.add(count_run(label, *rest.rsplit("=", 1)))
    print(total)
    return 0 if total.failed == 0 and total.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
