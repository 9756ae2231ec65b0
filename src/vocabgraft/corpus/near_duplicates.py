"""Find texts that are nearly the same as another: MinHash and locality-sensitive hashing, then an exact look.

A text is known by its runs of letters and digits in one form (NFKC, case folded), so that spaces, punctuation and
capitals make no difference: 4 letters of Hangul, Han and Kana, 10 of other scripts (of the sizes tried, the longest
that still find lightly edited laws and medical English). The share of runs that two texts have in common (Jaccard) is
estimated from the least hashes of each under many permutations (Broder 1997); texts that agree in one band of them are
compared run by run, so a text is never called a near-duplicate by chance. Of those alike one stays, chosen by a hash
of its text: neither files nor their order matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vocabgraft.corpus.letters import Hashes, Places, dense, letters, runs
from vocabgraft.errors import DataError

PERMUTATIONS = 128
_SYLLABLES, _LETTERS = 4, 10  # letters of a run
_RECALL = 0.995  # of pairs that share just so much as the threshold
_TOGETHER = 1 << 15  # runs of texts that are looked at together: what is at work fits a core's cache
_SPREADS = 3  # standard deviations by which an estimate may fall short: 1 in 740 just at the threshold falls by more
_HELD = 1 << 24  # runs kept at hand while pairs are compared: 128 MB
_DRAW = np.random.default_rng(20261123)
_FACTORS = _DRAW.integers(0, 1 << 31, PERMUTATIONS, np.uint32) * np.uint32(2) + np.uint32(1)
_TERMS = _DRAW.integers(0, 1 << 32, PERMUTATIONS, np.uint32)
_MIXING = np.uint64(0xBF58476D1CE4E5B9)

Signatures = NDArray[np.uint32]
Marks = NDArray[np.uint8]


def near_duplicates(texts: Sequence[str], threshold: float, first: int = 0) -> dict[int, int]:
    """Return which texts to leave out, each with the one that stays for it: places in `texts`.

    The `first` texts go before all others; one of them is never left out for a later one. Texts shorter than a run are
    not looked at. Needs about 0.4 kB a text and 0.2 GB.
    """
    known, keys, marks = signed(texts, threshold)
    order = sorted(range(len(texts)), key=lambda n: (n >= first, hashlib.sha256(texts[n].encode()).digest()))
    rank = np.empty(len(texts), np.int64)
    rank[order] = np.arange(len(texts))
    row = np.full(len(texts), -1, np.int64)
    row[rank[known]] = np.arange(len(known))
    bands = ((k, rank[known]) for k in keys)
    found = alike(bands, lambda ranks: marks[row[ranks]], lambda n: texts[order[n]], threshold)
    return {order[one]: order[other] for one, other in found.items()}


def signed(texts: Sequence[str], threshold: float) -> tuple[Places, Hashes, Marks]:
    """Which texts have a run at all, (N,), the key of each in every band, (bands, N), of which texts alike share one,
    and its marks, (N, PERMUTATIONS): a byte of each least hash, by which Jaccard is estimated (arXiv 0910.3349)."""
    if not 0 < threshold < 1:
        raise DataError(f"near-duplicates share {threshold} of their runs; it must be between 0 and 1")
    rows = _rows_of_band(threshold)
    bands = PERMUTATIONS // rows
    known, found = signatures(texts)
    weights = _FACTORS[:rows].astype(np.uint64) * _MIXING
    keys = ((found[:, : bands * rows].reshape(-1, bands, rows) + np.uint64(1)) * weights).sum(2, dtype=np.uint64)
    return known, np.ascontiguousarray(keys.T), found.astype(np.uint8)  # the low bytes: the high ones are all near 0


def alike(
    bands: Iterable[tuple[Hashes, Places]],
    marks: Callable[[Places], Marks],
    text: Callable[[int], str],
    threshold: float,
) -> dict[int, int]:
    """Which texts to leave out, each with the one that stays for it. Texts are known by their ranks: the lower stays.

    bands: for each band the keys of texts and their ranks. marks, text: those of ranks; asked only for texts that share
    a key, text only where the marks agree enough.
    """
    ranks, groups = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for band, (keys, rank) in enumerate(bands):
        _, group, count = np.unique(keys, return_inverse=True, return_counts=True)
        several = count[group] > 1
        ranks.append(rank[several])
        groups.append(group[several] + (band << 40))
    every, group = np.concatenate(ranks), np.concatenate(groups)
    order = np.lexsort((group, every))
    shared = np.unique(every)
    signs = marks(shared)
    shingles = _AtHand(lambda n: shingles_of(text(n)))
    kept: dict[int, list[int]] = {}
    found: dict[int, int] = {}
    edges = [*np.flatnonzero(np.diff(every[order], prepend=-1)).tolist(), len(order)]
    for start, end in pairwise(edges):
        n, mine = int(every[order[start]]), group[order[start:end]].tolist()
        candidates = sorted({other for key in mine for other in kept.get(key, ())})
        own, theirs = np.searchsorted(shared, n), np.searchsorted(shared, candidates)
        likely = _likely(signs[own], signs[theirs], threshold)
        tried = (other for other, worth in zip(candidates, likely.tolist(), strict=True) if worth)
        same = next((other for other in tried if _alike(shingles(n), shingles(other), threshold)), None)
        if same is not None:
            found[n] = same
            continue
        for key in mine:
            kept.setdefault(key, []).append(n)
    return found


def shingles_of(text: str) -> Hashes:
    """The runs of a text, each once, in rising order of their hashes."""
    return np.unique(_runs(text))


def signatures(texts: Sequence[str]) -> tuple[Places, Signatures]:
    """Which texts have a run at all, (N,), and the least hash of each under every permutation, (N, PERMUTATIONS)."""
    known: list[int] = []
    found = [np.zeros((0, PERMUTATIONS), np.uint32)]
    waiting: list[Hashes] = []
    size = 0
    for n, text in enumerate(texts):
        if len(hashes := _runs(text)):
            known.append(n)
            waiting.append(hashes)
            size += len(hashes)
        if size >= _TOGETHER or (waiting and n == len(texts) - 1):
            found.append(_least(waiting))
            waiting, size = [], 0
    return np.array(known, np.int64), np.concatenate(found)


def _runs(text: str) -> Hashes:
    codes = letters(text).whole
    return runs(codes, _SYLLABLES if dense(codes) else _LETTERS)


def _least(texts: Sequence[Hashes]) -> Signatures:
    starts = np.cumsum([0, *map(len, texts[:-1])])
    hashes = np.concatenate(texts)
    # A polynomial's low bits know only the low bits of its letters.
    mixed = (((hashes ^ (hashes >> np.uint64(30))) * _MIXING) >> np.uint64(32)).astype(np.uint32)
    least = np.empty((len(texts), PERMUTATIONS), np.uint32)
    for n, (factor, term) in enumerate(zip(_FACTORS, _TERMS, strict=True)):
        least[:, n] = np.minimum.reduceat(mixed * factor + term, starts)
    return least


def _rows_of_band(threshold: float) -> int:
    """The most rows that a band may have, so that pairs at the threshold agree in one of them almost surely."""
    rows = range(1, PERMUTATIONS + 1)
    return max(r for r in rows if r == 1 or 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= _RECALL)


def _likely(one: Marks, others: Marks, threshold: float) -> NDArray[np.bool_]:
    """Which of others (N, PERMUTATIONS) may be alike, by the share of permutations that agree: looking run by run at
    texts of one template, which share a band and no more, took minutes."""
    agree = (others == one).mean(1) if len(others) else np.zeros(0)
    spread = (threshold * (1 - threshold) / PERMUTATIONS) ** 0.5
    return np.asarray(agree >= threshold - _SPREADS * spread)


class _AtHand:
    """The runs of texts, the latest asked for kept: few long texts or many short ones."""

    def __init__(self, make: Callable[[int], Hashes]) -> None:
        self._make, self._kept, self._size = make, dict[int, Hashes](), 0

    def __call__(self, n: int) -> Hashes:
        if n in self._kept:
            found = self._kept.pop(n)
        else:
            found = self._make(n)
            self._size += len(found)
        self._kept[n] = found
        while self._size > _HELD and len(self._kept) > 1:
            self._size -= len(self._kept.pop(next(iter(self._kept))))
        return found


def _alike(one: Hashes, other: Hashes, threshold: float) -> bool:
    if min(len(one), len(other)) < threshold * max(len(one), len(other)):
        return False
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common >= threshold * (len(one) + len(other) - common)
