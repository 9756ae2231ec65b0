"""Static vectors of tokens, trained on the user's own corpus: positive PMI of co-occurrence, then a truncated SVD.

Levy and Goldberg (NeurIPS 2014) show this to be what skip-gram factorises; it needs no extra package, is
deterministic, and a corpus of any size gives something to align.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_REACH = 5  # tokens on each side that count as context
_MOST_TOKENS = 1_000_000  # more text changes the vectors little and the time much


@dataclass(frozen=True)
class TokenVectors:
    """Unit vectors (N, K) of the token ids that occur often enough; `place[id]` is the row."""

    ids: tuple[int, ...]
    vectors: Tensor

    @property
    def place(self) -> dict[int, int]:
        """id -> row."""
        return {t: i for i, t in enumerate(self.ids)}


def train_vectors(documents: Iterable[Sequence[int]], *, size: int, min_count: int, seed: int) -> TokenVectors:
    """Train vectors of `size` dimensions for every token seen at least `min_count` times."""
    stream = _stream(documents)
    ids, counts = np.unique(stream[stream >= 0], return_counts=True)
    kept = ids[counts >= min_count]
    place = np.full(int(ids.max(initial=0)) + 1, -1)
    place[kept] = np.arange(len(kept))
    local = np.where(stream >= 0, place[np.maximum(stream, 0)], -1)
    matrix = _positive_pmi(local, len(kept))
    torch.manual_seed(seed)
    rank = min(size, len(kept) - 1)
    if rank < 2:
        return TokenVectors((), torch.zeros(0, size))
    u, s, _ = torch.svd_lowrank(matrix, q=min(rank + 8, len(kept)), niter=4)
    vectors = u[:, :rank] * s[:rank].sqrt()
    return TokenVectors(tuple(int(i) for i in kept), torch.nn.functional.normalize(vectors, dim=1))


def _stream(documents: Iterable[Sequence[int]]) -> np.ndarray:
    """All tokens in one array, documents kept apart by more -1 than the context reaches."""
    parts: list[np.ndarray] = []
    total = 0
    for ids in documents:
        parts += [np.asarray(ids, np.int64), np.full(_REACH, -1, np.int64)]
        total += len(ids)
        if total >= _MOST_TOKENS:
            break
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _positive_pmi(local: np.ndarray, size: int) -> Tensor:
    keys, weights = [], []
    for distance in range(1, _REACH + 1):
        left, right = local[:-distance], local[distance:]
        both = (left >= 0) & (right >= 0)
        for a, b in ((left, right), (right, left)):
            found, n = np.unique(a[both] * size + b[both], return_counts=True)
            keys.append(found)
            weights.append(n / distance)
    key, place = np.unique(np.concatenate(keys), return_inverse=True)
    weight = np.bincount(place, np.concatenate(weights), len(key))
    row, column = key // max(size, 1), key % max(size, 1)
    total = np.bincount(row, weight, size)
    smooth = total**0.75  # context distribution smoothing (Levy et al., TACL 2015)
    smooth /= max(smooth.sum(), 1e-12)
    pmi = np.log(weight / (total[row] * smooth[column]))
    keep = pmi > 0
    index = torch.from_numpy(np.stack([row[keep], column[keep]]))
    values = torch.from_numpy(pmi[keep]).float()
    return torch.sparse_coo_tensor(index, values, (size, size), check_invariants=False).coalesce()
