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
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vocabgraft.corpus.letters import Hashes, Places, dense, letters, runs
from vocabgraft.errors import DataError

PERMUTATIONS = 128
_SYLLABLES, _LETTERS = 4, 10  # letters of a run
_RECALL = 0.995  # of pairs that share just so much as the threshold
_TOGETHER = 1 << 15  # runs of texts that are looked at together: what is at work fits a core's cache
_SPREADS = (
    3  # standard deviations by which an estimate may fall short: 1 in 740 at the threshold falls by more, none above
)
_HELD = 1 << 24  # runs kept at hand while pairs are compared: 128 MB
_DRAW = np.random.default_rng(20261123)
_FACTORS = _DRAW.integers(0, 1 << 31, PERMUTATIONS, np.uint32) * np.uint32(2) + np.uint32(1)
_TERMS = _DRAW.integers(0, 1 << 32, PERMUTATIONS, np.uint32)
_MIXING = np.uint64(0xBF58476D1CE4E5B9)

Signatures = NDArray[np.uint32]


def near_duplicates(texts: Sequence[str], threshold: float, first: int = 0) -> dict[int, int]:
    """Return which texts to leave out, each with the one that stays for it: places in `texts`.

    The `first` texts go before all others; one of them is never left out for a later one. Texts shorter than a run are
    not looked at. Needs about 0.6 kB a text and 0.2 GB.
    """
    if not 0 < threshold < 1:
        raise DataError(f"near-duplicates share {threshold} of their runs; it must be between 0 and 1")
    order = sorted(range(len(texts)), key=lambda n: (n >= first, hashlib.sha256(texts[n].encode()).digest()))
    places, known = signatures([texts[n] for n in order])
    row_of = dict(zip(places.tolist(), range(len(places)), strict=True))
    groups = np.full((len(texts), PERMUTATIONS // _rows_of_band(threshold)), -1, np.int32)
    groups[places] = _groups(known, _rows_of_band(threshold))
    shingles = _AtHand(lambda n: shingles_of(texts[order[n]]))
    kept: dict[tuple[int, int], list[int]] = {}
    found: dict[int, int] = {}
    for n in np.flatnonzero((groups >= 0).any(1)).tolist():
        mine = [(band, group) for band, group in enumerate(groups[n].tolist()) if group >= 0]
        candidates = sorted({other for key in mine for other in kept.get(key, ())})
        likely = _likely(known[row_of[n]], known[[row_of[other] for other in candidates]], threshold)
        tried = (other for other, worth in zip(candidates, likely.tolist(), strict=True) if worth)
        alike = next((other for other in tried if _alike(shingles(n), shingles(other), threshold)), None)
        if alike is not None:
            found[order[n]] = order[alike]
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


def _groups(known: Signatures, rows: int) -> NDArray[np.int32]:
    """For each signature and band (N, B): a number that signatures alike in it share, -1 where there is no other."""
    bands = PERMUTATIONS // rows
    weights = _FACTORS[:rows].astype(np.uint64) * _MIXING
    keys = ((known[:, : bands * rows].reshape(-1, bands, rows) + np.uint64(1)) * weights).sum(2, dtype=np.uint64)
    groups = np.empty((len(known), bands), np.int32)
    for band in range(bands):
        _, group, count = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        groups[:, band] = np.where(count[group] > 1, group, -1)
    return groups


def _likely(one: Signatures, others: Signatures, threshold: float) -> NDArray[np.bool_]:
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
