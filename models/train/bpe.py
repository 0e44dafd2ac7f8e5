"""A SentencePiece-style byte-pair vocabulary with byte fall-back, and the encoder that llama.cpp calls `llama` (SPM).

Pieces: <unk>, <s>, </s>, 256 byte pieces, every letter of the text, then merges; a piece's score is minus its rank.
A merge never crosses a word: a word is an optional space mark and a run of letters or a run of other signs. So encoding
word by word equals llama.cpp's encoding of the whole text, which joins the best-scored neighbours until none is left.
"""
import collections
import re

SPACE = "\u2581"
UNKNOWN, BEGIN, END, FIRST_BYTE = 0, 1, 2, 3
TYPE_NORMAL, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_BYTE = 1, 2, 3, 6
_WORD = re.compile(f"{SPACE}?[A-Za-z]+|{SPACE}?[^A-Za-z\\s{SPACE}]+|[\\s{SPACE}]")


def _words(text):
    return _WORD.findall((" " + text).replace(" ", SPACE))


def _pairs_of(counts):
    pairs = collections.Counter()
    for pieces, n in counts.items():
        for pair in zip(pieces, pieces[1:]):
            pairs[pair] += n
    return pairs


def _join(pieces, pair):
    out, i = [], 0
    while i < len(pieces):
        if pieces[i:i + 2] == pair:
            out.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            out.append(pieces[i])
            i += 1
    return tuple(out)


class Vocabulary:
    def __init__(self, pieces, scores, types):
        self.pieces, self.scores, self.types = pieces, scores, types
        self._rank = {p: i for i, p in enumerate(pieces) if types[i] == TYPE_NORMAL}
        self._known = {}

    def _encode_word(self, word):
        pieces = list(word)
        while True:
            joined = [(self._rank.get(a + b), i) for i, (a, b) in enumerate(zip(pieces, pieces[1:]))]
            best = min((j for j in joined if j[0] is not None), default=None)
            if best is None:
                break
            pieces[best[1]:best[1] + 2] = [pieces[best[1]] + pieces[best[1] + 1]]
        ids = []
        for piece in pieces:
            if piece in self._rank:
                ids.append(self._rank[piece])
            else:
                ids.extend(FIRST_BYTE + byte for byte in piece.encode())
        return ids

    def encode(self, text):
        ids = []
        for word in _words(text):
            if word not in self._known:
                self._known[word] = self._encode_word(word)
            ids.extend(self._known[word])
        return ids

    def decode(self, ids):
        out = bytearray()
        for i in ids:
            if self.types[i] == TYPE_BYTE:
                out.append(i - FIRST_BYTE)
            elif self.types[i] == TYPE_NORMAL:
                out += self.pieces[i].replace(SPACE, " ").encode()
        return out.decode(errors="replace")


def train(text, n_pieces):
    """The vocabulary of @n_pieces pieces for @text; ties go to the pair that sorts first."""
    words = collections.Counter(w for w in _words(text) if not w.isspace())
    counts = {tuple(word): n for word, n in words.items()}
    letters = collections.Counter()
    for pieces, n in counts.items():
        for piece in pieces:
            letters[piece] += n
    learned = sorted(letters, key=lambda c: (-letters[c], c))

    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    merges = []
    while len(pieces) + len(learned) + len(merges) < n_pieces:
        pairs = _pairs_of(counts)
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append("".join(best))
        joined = collections.Counter()
        for word, n in counts.items():
            joined[_join(word, best)] += n
        counts = joined

    n_special, n_letters = len(pieces), len(learned)
    pieces += merges + learned  # as SentencePiece orders them: merges by rank, single letters last
    scores = [0.0] * n_special + [-float(i) for i in range(len(merges) + n_letters)]
    types = [TYPE_UNKNOWN, TYPE_CONTROL, TYPE_CONTROL] + [TYPE_BYTE] * 256 + [TYPE_NORMAL] * (len(merges) + n_letters)
    if len(set(pieces)) != len(pieces):
        raise ValueError("a piece was learned twice")
    return Vocabulary(pieces, scores, types)
