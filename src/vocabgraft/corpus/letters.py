"""What two texts are compared by: their letters and digits in one form, and the runs of them.

Spaces, punctuation, width, capitals, composed or decomposed Hangul make no difference (NFKC, case folded).
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

_PARTICLES = "은는이가을를의에서와과도로"
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))

Codes = NDArray[np.uint32]
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]
NO_RUNS: Hashes = np.zeros(0, np.uint64)


@dataclass(frozen=True)
class Letters:
    """The letters and digits of a text in one form, code points (L,), and those that are no particle's (N,)."""

    whole: Codes
    kept: Places
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
        return NO_RUNS
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


def dense(codes: Codes) -> bool:
    """Whether the script writes a syllable or a word in a letter, mostly."""
    return bool(len(codes)) and float((_kinds()[codes] == _DENSE).mean()) >= 0.3
