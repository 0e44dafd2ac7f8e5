"""The text: the King James Bible as Debian's package bible-kjv prints it, one line a chapter."""
import re
import subprocess

HELD_OUT = "Jonah"  # never trained on; becomes eval.txt
_VERSE = re.compile(r"^(\d?[A-Za-z]+)(\d+):\d+ (.*)$")


def read_chapters():
    """All 1,189 chapters as (book, text), verses joined by a space."""
    command = ["bible", "-f", "gen1:1-rev22:21"]
    out = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, encoding="ascii")
    chapters = {}
    for line in out.stdout.splitlines():
        match = _VERSE.match(line)
        if not match:
            raise ValueError(f"not a verse: {line!r}")
        book, chapter, text = match.groups()
        chapters.setdefault((book, int(chapter)), []).append(" ".join(text.split()))
    return [(book, " ".join(verses)) for (book, _), verses in chapters.items()]


def split():
    """(training text, held-out text): chapters joined by a line break."""
    chapters = read_chapters()
    train = [text for book, text in chapters if book != HELD_OUT]
    held_out = [text for book, text in chapters if book == HELD_OUT]
    return "\n".join(train) + "\n", "\n".join(held_out) + "\n"
