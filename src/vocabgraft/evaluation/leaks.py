"""Does a text hold a question of a benchmark? Asked of every training text, before anything trains on it.

Letters and digits alone are compared, in one form (NFKC, case folded): spaces, punctuation, width, composed or
decomposed Hangul make no difference. Nor do Korean particles: their syllables are left out wherever they stand. An item
is known by the runs of letters of its question and of its options, each apart, so that their order makes none either:
13 letters long, as is usual (Brown et al. 2020, arXiv 2005.14165, appendix C), and 6 where scripts write a syllable or
a word in a letter.

A law that an exam quotes is no leak of the exam. So a text holds an item only where much of it stands within a stretch
of about its length: nearly all of it, or half with the words that end the question, which a quotation has not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from vocabgraft.evaluation.questions import Question

LONG, SHORT = 13, 6  # letters of a run: of alphabets; of Hangul, Han and Kana
CANDIDATE = 0.25  # share of an item's runs below which it is not looked at closely
ASKED = 0.5  # share of its letters that tells it together with the end of the question …
QUESTION = 0.6  # … or of the question's runs alone, where they are so many:
QUESTION_LEAST = 6
COPIED = 0.8  # share of its letters that tells it without the end of the question
_PARTICLES = "은는이가을를의에서와과도로"
_COMMON = 32  # runs of more items than these ask for nothing in particular
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
_FILTER_BITS = 25
_BLOCK, _OVERLAP = 1 << 20, 1 << 13  # characters looked at together, which bounds the memory; longer than any item

Codes = NDArray[np.uint32]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Letters:
    """The letters and digits of a text in one form, code points (L,), and those that are no particle's (N,)."""

    whole: Codes
    kept: NDArray[np.int64]
    """Where they stand in `whole`."""

    @cached_property
    def codes(self) -> Codes:
        """Without the syllables of particles."""
        return self.whole[self.kept]


def letters(text: str) -> Letters:
    """What of a text is compared."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    codes = np.frombuffer(folded.encode("utf-32-le", "replace"), np.uint32)
    kind = _kinds()[codes]
    whole = codes[kind > 0]
    return Letters(whole, np.flatnonzero(kind[kind > 0] != _PARTICLE))


_OTHER, _PARTICLE, _DENSE = 1, 2, 3


@cache
def _kinds() -> NDArray[np.uint8]:
    """For every code point: 0 for no letter or digit; else whether it may be a particle, or a syllable or a word."""
    kinds = np.fromiter((chr(c).isalnum() for c in range(0x110000)), np.uint8, 0x110000)
    for first, last in ((0xAC00, 0xD7A3), (0x1100, 0x11FF), (0x3041, 0x30FF), (0x3400, 0x9FFF), (0x20000, 0x3FFFF)):
        kinds[first : last + 1] *= _DENSE
    kinds[[ord(c) for c in _PARTICLES]] = _PARTICLE
    return kinds


def runs(codes: Codes, size: int) -> Hashes:
    """A hash of each run of so many letters: (L - size + 1,), polynomial modulo 2**64."""
    if len(codes) < size:
        return np.zeros(0, np.uint64)
    powers, inverse = _powers(1 << max(10, len(codes).bit_length()))
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum((codes + np.uint64(1)) * powers[: len(codes)], out=sums[1:])
    return (sums[size:] - sums[:-size]) * inverse[: len(codes) - size + 1]


@cache
def _powers(size: int) -> tuple[Hashes, Hashes]:
    found = []
    for base in (_BASE, _INVERSE):
        factors = np.full(size, base, np.uint64)
        factors[0] = 1
        found.append(np.cumprod(factors))
    return found[0], found[1]


@dataclass(frozen=True)
class Leak:
    """An item that a text holds: its place among the items, the share of its letters that stand there."""

    item: int
    share: float


class LeakIndex:
    """The items of all benchmarks, ready to be looked for. Building takes about a second for 10,000 items."""

    def __init__(self, items: Sequence[Question]) -> None:
        self.items = items
        self._parts = [[letters(text) for text in (q.question, *q.options)] for q in items]
        codes = [[part.codes for part in parts] for parts in self._parts]
        sizes = [SHORT if _dense(np.concatenate(c)) else LONG for c in codes]
        self._runs = [
            _Runs([c if s == size else [] for c, s in zip(codes, sizes, strict=True)], size) for size in (SHORT, LONG)
        ]

    @property
    def unknown(self) -> list[int]:
        """Items without a run, so short are their question and options: they cannot be looked for."""
        return [n for n in range(len(self.items)) if not any(len(known.of[n]) for known in self._runs)]

    def find(self, text: str) -> list[Leak]:
        """The items that a text holds, in their order."""
        found: dict[int, float] = {}
        for start in range(0, max(1, len(text)), _BLOCK):
            for item, share in self._in_block(text[start : start + _BLOCK + _OVERLAP]).items():
                found[item] = max(share, found.get(item, 0.0))
        return [Leak(item, share) for item, share in sorted(found.items())]

    def _in_block(self, text: str) -> dict[int, float]:
        read = letters(text)
        found: dict[int, float] = {}
        for known in self._runs:
            for item, start, end in known.candidates(read.codes):
                # Short options have no runs of their own to be found by: they stand around what was found.
                reach = 8 + sum(len(p.codes) + 2 for p in self._parts[item][1:] if len(p.codes) < known.size)
                start, end = max(0, start - reach), min(end + reach, len(read.kept))
                near = read.whole[read.kept[start] : read.kept[end - 1] + 9], read.codes[start:end]
                share = _share(self._parts[item], *near, known.size)
                if share is not None:
                    found[item] = max(share, found.get(item, 0.0))
        return found


def _dense(codes: Codes) -> bool:
    """Whether the script writes a syllable or a word in a letter, mostly."""
    return bool(len(codes)) and float((_kinds()[codes] == _DENSE).mean()) >= 0.3


def _share(parts: Sequence[Letters], whole: Codes, codes: Codes, size: int) -> float | None:
    """Share of an item's letters that stand in a stretch; None where that tells nothing."""
    stretch, its_runs = codes.tobytes(), runs(codes, size)
    held = [_held(part.codes, stretch, its_runs, size) for part in parts]
    lengths = [len(part.codes) for part in parts]
    share = sum(n * each for n, each in zip(lengths, held, strict=True)) / max(1, sum(lengths))
    asked = _stands(parts[0].whole[-size:], whole.tobytes())
    question = held[0] >= QUESTION and held[0] * (lengths[0] - size + 1) >= QUESTION_LEAST
    return share if share >= COPIED or (asked and (share >= ASKED or question)) else None


def _held(part: Codes, stretch: bytes, its_runs: Hashes, size: int) -> float:
    """Share of a question's or an option's runs that stand in a stretch; of a shorter one, whether it does."""
    if len(part) < size:
        return float(_stands(part, stretch))
    return float(np.isin(runs(part, size), its_runs).mean())


def _stands(part: Codes, stretch: bytes) -> bool:
    """Whole code points only: the bytes of one may begin within another."""
    wanted = part.tobytes()
    at = stretch.find(wanted)
    while at > 0 and at % 4:
        at = stretch.find(wanted, at + 1)
    return at >= 0 and bool(wanted)


class _Runs:
    """Runs of one length: which items have each, and a filter that lets few others through."""

    def __init__(self, items: Sequence[Sequence[Codes]], size: int) -> None:
        """items: the letters of the question and options of each."""
        self.size = size
        self.of = [np.unique(np.concatenate([np.zeros(0, np.uint64), *(runs(p, size) for p in i)])) for i in items]
        self._lengths = [sum(map(len, parts)) + 2 * len(parts) for parts in items]
        self._least = CANDIDATE * np.array([len(r) for r in self.of])
        owners = np.repeat(np.arange(len(items)), [len(r) for r in self.of])
        every = np.concatenate([np.zeros(0, np.uint64), *self.of])
        order = np.argsort(every, kind="stable")
        self._known, self._first, self._count = np.unique(every[order], return_index=True, return_counts=True)
        self._owners = owners[order]
        self._filter = np.zeros(1 << (_FILTER_BITS - 3), np.uint8)
        slot = self._known >> np.uint64(64 - _FILTER_BITS)
        np.bitwise_or.at(self._filter, slot >> np.uint64(3), np.uint8(1) << (slot & np.uint64(7)).astype(np.uint8))

    def candidates(self, codes: Codes) -> list[tuple[int, int, int]]:
        """(item, start, end) of stretches that hold most of each item of which they hold enough."""
        places, known = self._known_runs(codes)
        counts = self._count[known]
        owner = self._owners[np.repeat(self._first[known], counts) + _counted(counts)]
        run, place = np.repeat(known, counts), np.repeat(places, counts)
        # A run of many items brings none of them up: "which of the following" asks for nothing in particular.
        rare = np.zeros(len(self.of), bool)
        rare[owner[np.repeat(counts, counts) <= _COMMON]] = True
        total = np.bincount(owner, minlength=len(self.of))
        chosen = np.flatnonzero(rare & (total >= np.maximum(1, self._least)))
        by_item = np.argsort(owner, kind="stable")
        starts = np.searchsorted(owner[by_item], chosen)
        found = []
        for item, at in zip(chosen.tolist(), starts.tolist(), strict=True):
            mine = by_item[at : at + total[item]]
            for count, start, end in self._densest(place[mine], run[mine], item):
                if count >= self._least[item]:
                    found.append((item, start, end + self.size))
        return found

    def _known_runs(self, codes: Codes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where a run of any item stands, and which."""
        hashes = runs(codes, self.size)
        if not len(self._known):
            hashes = hashes[:0]
        slot = hashes >> np.uint64(64 - _FILTER_BITS)
        passed = self._filter[slot >> np.uint64(3)] >> (slot & np.uint64(7)).astype(np.uint8) & 1
        places = np.flatnonzero(passed)
        at = np.searchsorted(self._known, hashes[places])
        real = self._known[np.minimum(at, len(self._known) - 1)] == hashes[places]
        return places[real], at[real]

    def _densest(self, places: NDArray[np.int64], found: NDArray[np.int64], item: int) -> list[tuple[int, int, int]]:
        """Most different runs within a stretch of one and a quarter times the item: (how many, start, end).

        places: in rising order. A run that stands again within a stretch's length counts once: where it stood first,
        and in a second answer where it stood last, since a question may follow the law that it quotes.
        """
        reach = self._lengths[item] * 5 // 4 + 2 * self.size
        if (np.searchsorted(places, places + reach, "right") - np.arange(len(places))).max() < self._least[item]:
            return []
        order = np.lexsort((places, found))
        near = (np.diff(found[order]) == 0) & (np.diff(places[order]) <= reach)
        stretches = set()
        for again in (order[1:][near], order[:-1][near]):
            once = np.delete(places, again)
            counts = np.searchsorted(once, once + reach, "right") - np.arange(len(once))
            best = int(counts.argmax())
            stretches.add((int(counts[best]), int(once[best]), int(once[best + counts[best] - 1])))
        return sorted(stretches)


def _counted(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 … n - 1 for each n."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)
