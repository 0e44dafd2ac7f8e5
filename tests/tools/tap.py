"""Test programs in Python speak TAP: one line a test, `left out: ...` for what cannot run here."""
import sys
import traceback

_count = 0
_failed = 0


def case(name, check):
    """Runs check(); an exception, with its message, is the failure."""
    global _count, _failed
    _count += 1
    try:
        check()
        print(f"ok {_count} - {name}", flush=True)
    except Exception:  # whatever it is, it is this test's failure
        _failed += 1
        print("".join(f"# {line}\n" for line in traceback.format_exc().splitlines()), end="")
        print(f"not ok {_count} - {name}", flush=True)


def left_out(name, why):
    print(f"# left out: {name}: {why}", flush=True)


def end():
    print(f"1..{_count}" + ("" if _count else " # SKIP nothing can run here"), flush=True)
    sys.exit(1 if _failed else 0)
