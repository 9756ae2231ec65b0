"""Find texts that came before, and texts that give away the questions of an evaluation.

Contamination is judged by character n-grams (13, after GPT-3's appendix C, arXiv 2005.14165, there in words): an item
has leaked when at least half of its n-grams stand in the text. All n-grams of a text are hashed at once by doubling,
hash(AB) = hash(A) * P^|B| + hash(B), so 13 characters take five multiplications (8 + 4 + 1); a table of one byte per
slot then passes the few that may be an item's. What is reported has been compared as text, never by hash alone.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from vocabgraft.errors import DataError

# Odd, with well-mixed high bits: 2^64 divided by the golden ratio.
_P = 0x9E3779B97F4A7C15


def _squash(text: str) -> str:
    """Return the text without white space and capitals, in NFC."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return "".join(unicodedata.normalize("NFC", folded).split())


def _hashes(text: str, n: int) -> NDArray[np.uint64]:
    """Return the 64-bit hash of every run of n characters, in order of place."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    places = max(0, len(codes) - n + 1)
    whole, covered = np.zeros(places, np.uint64), 0
    window, width = codes, 1
    while places and width <= n:
        power = np.uint64(pow(_P, width, 1 << 64))
        if n & width:
            whole = whole * power + window[covered : covered + places]
            covered += width
        window = window[:-width] * power + window[width:]
        width *= 2
    # Neighbouring code points differ in the low bits only; the table takes the high ones.
    return whole * np.uint64(_P)


class ExactDuplicates:
    """Remember texts by SHA-256, white space and capitals aside (about 100 bytes a text)."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._digests)

    def seen(self, text: str) -> bool:
        """Tell whether the text came before, and remember it."""
        digest = hashlib.sha256(_squash(text).encode("utf-8", "surrogatepass")).digest()[:16]
        before = len(self._digests)
        self._digests.add(digest)
        return len(self._digests) == before


class LeakIndex:
    """The character n-grams of evaluation items, to be looked for in training texts.

    White space and capitals do not count. Holds about 40 bytes a character of the items.
    """

    def __init__(self, items: Iterable[str], n: int = 13, *, ids: Sequence[str] | None = None) -> None:
        if n < 1:
            raise DataError(f"n-grams of {n} characters were asked for; n is at least 1")
        self._n = n
        self._items = [_squash(item) for item in items]
        self._ids = [str(i) for i in range(len(self._items))] if ids is None else list(ids)
        if len(self._ids) != len(self._items):
            raise DataError(f"{len(self._ids)} ids were given for {len(self._items)} items; give one for each")
        self._short = [i for i, item in enumerate(self._items) if 0 < len(item) < n]
        grams = [np.unique(_hashes(item, n)) for item in self._items]
        self._sizes = np.array([len(one) for one in grams], np.int64)
        owners = np.repeat(np.arange(len(grams), dtype=np.int32), self._sizes)
        hashes = np.concatenate([np.zeros(0, np.uint64), *grams])
        order = np.argsort(hashes, kind="stable")
        self._grams, self._owners = hashes[order], owners[order]
        bits = max(16, (16 * len(hashes)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, np.bool_)
        self._maybe[hashes >> self._shift] = True

    def leaks(self, text: str, min_share: float = 0.5) -> str | None:
        """Return the id (default: the index) of the first item of which `min_share` of the n-grams are in the text.

        Items shorter than n leak when they are contained whole; empty ones never.
        """
        if not 0 < min_share <= 1:
            raise DataError(f"min_share is {min_share}; it must be above 0 and at most 1")
        squashed = _squash(text)
        leaked = next((i for i in self._short if self._items[i] in squashed), len(self._items))
        for i in self._suspects(squashed, min_share):
            item = self._items[i]
            grams = {item[k : k + self._n] for k in range(len(item) - self._n + 1)}
            if sum(gram in squashed for gram in grams) >= min_share * len(grams):
                leaked = min(leaked, i)
                break
        return self._ids[leaked] if leaked < len(self._items) else None

    def _suspects(self, text: str, min_share: float) -> list[int]:
        """Return, in order, the items of which `min_share` of the n-gram hashes occur in the text."""
        every = _hashes(text, self._n)
        there = every[self._maybe[every >> self._shift]]
        if not len(there):
            return []
        there = np.unique(there)
        first = np.searchsorted(self._grams, there, "left").tolist()
        after = np.searchsorted(self._grams, there, "right").tolist()
        owners = [self._owners[a:b] for a, b in zip(first, after, strict=True) if a < b]
        if not owners:
            return []
        found = np.bincount(np.concatenate(owners), minlength=len(self._items))
        enough: list[int] = np.flatnonzero((found > 0) & (found >= min_share * self._sizes)).tolist()
        return enough
