"""Between which two letters some piece could stand: nowhere else can a merge reach across, so words may be cut there.

Letters that stand side by side inside no piece are never joined by a merge, because a merge gives a piece. What is
found here may err on the side of "joined"; that costs time and changes no token.

Byte-level pieces may begin or end inside a letter. They are read as whole letters where they hold them, and by the
last byte of a letter cut at its front, or the first byte of one cut at its end.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vocabgraft.tokenizer.spelling import LETTER_OF_BYTE

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

_BITS = 21  # of a code point, or of a byte put above all code points
_BYTE = 0x110000
_TABLE_BITS = 23
_MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_PLANE = 1 << 16
_COMPOSING = (range(0x1100, 0x1200), range(0xA960, 0xA980), range(0xD7B0, 0xD800))  # jamo, which NFC puts together

_OTHER, _DIGIT, _SIGN, _CASED, _PLAIN = range(5)  # kinds of letters: white space and marks are other
_NEVER, _UNLESS_JOINED, _ALWAYS = range(3)
_RULES = np.zeros((5, 5), np.int8)  # by the kinds on both sides of a cut
_RULES[_DIGIT, [_SIGN, _CASED, _PLAIN]] = _RULES[[_SIGN, _CASED, _PLAIN], _DIGIT] = _ALWAYS
_RULES[[_CASED, _PLAIN], _SIGN] = _ALWAYS
_RULES[[_SIGN, _CASED, _PLAIN], _PLAIN] = _RULES[_PLAIN, _CASED] = _UNLESS_JOINED


class LetterJoins:
    """For pieces spelt in letters, with ▁ for a space, whose merges run over the whole text."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pairs = _PairTable(*_neighbours(pieces))

    def cut(self, codes: Ints) -> Bools:
        """Whether to cut behind each letter of a text but the last, (letters - 1,)."""
        return ~self._pairs.holds(codes[:-1], codes[1:])


class ByteJoins:
    """For pieces spelt in the 256 letters of bytes, and texts that a pattern first cuts into runs of letters, digits …

    The known patterns (`boundary`) end a run of letters or digits wherever it ends, and nothing in them looks back, so
    a cut there changes nothing. Inside a run of letters a cut is safe when one of the two has no case (Hangul, Han,
    Kana, Thai …): no pattern names such a letter. No cut stands beside white space or a mark, where patterns look
    ahead and letters compose.
    """

    def __init__(self, pieces: Iterable[str], added: Iterable[str], *, composes: bool) -> None:
        """`pieces` spelt in bytes, `added` tokens as they stand in a text; `composes` when it is brought to NFC."""
        self._rules = _RULES.copy()
        if composes:
            self._rules[_PLAIN, _CASED] = _NEVER  # a mark behind the second letter could make another letter of it
        kept = [p for p in pieces if p]
        data = _BYTES[np.minimum(codes_of("".join(kept)), len(_BYTES) - 1)]
        lengths = np.fromiter(map(len, kept), np.int64, len(kept))
        left, right = _byte_neighbours(data, lengths)
        self._tables = [
            (a, b, _PairTable(left[chosen], right[chosen]))
            for a in (False, True)
            for b in (False, True)
            if (chosen := ((left >= _BYTE) == a) & ((right >= _BYTE) == b)).any()
        ]
        self._added = _PairTable(*_neighbours(added))
        # A byte without a piece is dropped, and then its neighbours stand side by side.
        known = np.zeros(256, bool)
        known[data[_first_of(lengths)][lengths == 1]] = True
        self._kinds = np.where(_spelt(known) | (_kinds() == _DIGIT), _kinds(), _OTHER)

    def cut(self, codes: Ints) -> Bools:
        """Whether to cut behind each letter of a text but the last, (letters - 1,)."""
        kinds = np.where(codes < _PLANE, self._kinds[np.minimum(codes, _PLANE - 1)], _OTHER)
        rules = self._rules[kinds[:-1], kinds[1:]]
        places = np.flatnonzero(rules)
        left, right = codes[places], codes[places + 1]
        kept = np.zeros(len(places), bool)
        for cut_front, cut_end, table in self._tables:
            kept |= table.holds(_last_byte(left) if cut_front else left, _first_byte(right) if cut_end else right)
        kept &= rules[places] == _UNLESS_JOINED
        kept |= self._added.holds(left, right)
        found = np.zeros(len(codes) - 1, bool)
        found[places[~kept]] = True
        return found


class _PairTable:
    """A set of pairs that may also say yes to a few it does not hold: one flag for each hash, whoever set it."""

    def __init__(self, left: Ints, right: Ints) -> None:
        self._table = np.zeros(1 << _TABLE_BITS, bool)
        self._table[_places(left, right)] = True

    def holds(self, left: Ints, right: Ints) -> Bools:
        found: Bools = self._table[_places(left, right)]
        return found


def _places(left: Ints, right: Ints) -> Ints:
    return hashed(left << _BITS | right, _TABLE_BITS)


def hashed(keys: Ints, bits: int) -> Ints:
    """Numbers below 2^bits that spread the keys evenly (Knuth, The Art of Computer Programming 3, 6.4)."""
    found = keys.view(np.uint64) * _MIXER
    found >>= np.uint64(64 - bits)
    return found.view(np.int64)


def codes_of(text: str) -> Ints:
    """Code points of a text, (letters,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)


def _first_of(lengths: Ints) -> Ints:
    return lengths.cumsum() - lengths


def _neighbours(texts: Iterable[str]) -> tuple[Ints, Ints]:
    """Every two letters side by side in a text."""
    kept = [t for t in texts if t]
    codes = codes_of("".join(kept))
    inside = _inside(np.fromiter(map(len, kept), np.int64, len(kept)), len(codes))
    return codes[:-1][inside], codes[1:][inside]


def _inside(lengths: Ints, total: int) -> Bools:
    """Whether each of `total` letters but the last is of the same text as the one behind it."""
    found = np.ones(max(total - 1, 0), bool)
    found[_first_of(lengths)[1:] - 1] = False
    return found


# Of bytes

_BYTES = np.zeros(max(map(ord, LETTER_OF_BYTE.values())) + 2, np.int64)  # the last for letters that spell no byte
_BYTES[[ord(letter) for letter in LETTER_OF_BYTE.values()]] = list(LETTER_OF_BYTE)


def _byte_neighbours(data: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """Every two letters side by side in a piece, whole or in part, that are not both ASCII (between those is no rule
    that asks)."""
    inside = _inside(lengths, len(data))
    opens = (data & 0xC0) != 0x80
    opens[_first_of(lengths)] = True
    starts = np.flatnonzero(opens)
    sizes = np.diff(starts, append=len(data))
    first, last = data[starts], data[starts + sizes - 1]
    whole = sizes == np.select([first < 0x80, first < 0xC0, first < 0xE0, first < 0xF0], [1, 0, 2, 3], 4)
    at = np.minimum(starts[:, None] + np.arange(4), len(data) - 1)
    codes = np.where(sizes == 2, (first & 0x1F) << 6 | last & 0x3F, 0)
    three = (first & 0x0F) << 12 | (data[at[:, 1]] & 0x3F) << 6 | last & 0x3F
    codes = np.select([sizes == 1, sizes == 3, sizes == 4], [first, three, _BYTE - 1], codes)  # 4 bytes: never cut
    left, right = np.where(whole, codes, _BYTE + last), np.where(whole, codes, _BYTE + first)
    both = ((first[:-1] >= 0x80) | (first[1:] >= 0x80)) & inside[starts[1:] - 1]
    return left[:-1][both], right[1:][both]


def _last_byte(codes: Ints) -> Ints:
    return _BYTE + (codes & 0x3F | 0x80)


def _first_byte(codes: Ints) -> Ints:
    return _BYTE + np.where(codes < 0x800, codes >> 6 | 0xC0, codes >> 12 | 0xE0)


@cache
def _kinds() -> npt.NDArray[np.int8]:
    """What patterns see in a letter of the Basic Multilingual Plane, (65,536,): as it has been since Unicode 3.2, so
    that every library's tables say the same."""
    composing = {c for block in _COMPOSING for c in block}
    found = np.full(_PLANE, _OTHER, np.int8)
    for code in range(_PLANE):
        letter = chr(code)
        category = unicodedata.category(letter)
        if unicodedata.ucd_3_2_0.category(letter) != category or unicodedata.normalize("NFC", letter) != letter:
            continue
        if category == "Lo":
            found[code] = _OTHER if code in composing else _PLAIN
        else:
            found[code] = {"L": _CASED, "N": _DIGIT, "P": _SIGN, "S": _SIGN}.get(category[0], _OTHER)
    return found


def plain_letters() -> str:
    """All letters without case of the Basic Multilingual Plane, as the inside of a regular expression's brackets."""
    codes = np.flatnonzero(_kinds() == _PLAIN)
    runs = np.split(codes, np.flatnonzero(np.diff(codes) > 1) + 1)
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)


def _spelt(known: Bools) -> Bools:
    """Letters of the Basic Multilingual Plane whose bytes are all known, (65,536,)."""
    codes = np.arange(_PLANE)
    ascii_ = (codes < 0x80) & known[codes & 0x7F]
    middle = known[codes >> 6 & 0x3F | 0x80] | (codes < 0x800)
    longer = (codes >= 0x80) & known[_first_byte(codes) - _BYTE] & middle & known[_last_byte(codes) - _BYTE]
    found: Bools = ascii_ | longer
    return found
