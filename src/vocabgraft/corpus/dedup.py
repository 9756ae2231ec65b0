"""Find texts that are the same."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint64]


def digests(texts: Sequence[str]) -> Digests:
    """For each text the start of a SHA-256, white space and capitals aside, (N, 2): the same for the same text."""
    found = [hashlib.sha256(_squash(t).encode("utf-8", "surrogatepass")).digest()[:16] for t in texts]
    return np.frombuffer(b"".join(found), np.uint64).reshape(-1, 2)


def repeated(found: Digests, rank: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which texts came before, (N,): of those with one digest that of the least rank stays, then the first."""
    order = np.lexsort((rank, found[:, 1], found[:, 0]))
    mask = np.zeros(len(found), bool)
    mask[order[1:]] = (found[order[1:]] == found[order[:-1]]).all(1)
    return mask


def _squash(text: str) -> str:
    """Return the text without white space and capitals, in NFC."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return "".join(unicodedata.normalize("NFC", folded).split())
