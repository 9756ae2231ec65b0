"""WECHSEL, written anew: a new row is a weighted mean of base rows whose words mean the same.

Minixhofer et al., NAACL 2022 (arXiv 2112.06598): static vectors of both languages are aligned by orthogonal
Procrustes on a bilingual dictionary; each target piece takes the rows of its nearest source tokens, weighted by
a softmax over cosine similarity. Pieces without a vector get no row here; the caller decides and records it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vocabgraft.embedding.vectors import TokenVectors


@dataclass(frozen=True)
class Alignment:
    """Rotation (K, K) from target to source vectors, and how many dictionary pairs carried it."""

    rotation: Tensor
    pairs: int
    fit: float
    """Mean cosine of the pairs after rotation."""


def align(
    pairs: Iterable[tuple[str, str]],
    source: TokenVectors,
    target: TokenVectors,
    encode_source: Callable[[str], Sequence[int]],
    encode_target: Callable[[str], Sequence[int]],
) -> Alignment | None:
    """Orthogonal Procrustes on the (source word, target word) pairs whose tokens all have vectors.

    None when fewer pairs than dimensions are covered: such a rotation would fit anything.
    """
    lefts, rights = [], []
    source_place, target_place = source.place, target.place
    for source_word, target_word in pairs:
        left = _word_vector(encode_source(source_word), source, source_place)
        right = _word_vector(encode_target(target_word), target, target_place)
        if left is not None and right is not None:
            lefts.append(left)
            rights.append(right)
    width = min(source.vectors.shape[1], target.vectors.shape[1])
    if len(lefts) < width:
        return None
    a, b = torch.stack(rights)[:, :width], torch.stack(lefts)[:, :width]
    u, _, vh = torch.linalg.svd(a.T @ b)
    rotation = u @ vh
    fit = torch.nn.functional.cosine_similarity(a @ rotation, b, dim=1).mean()
    return Alignment(rotation, len(lefts), float(fit))


def _word_vector(ids: Sequence[int], vectors: TokenVectors, place: dict[int, int]) -> Tensor | None:
    known = [place[i] for i in ids if i in place]
    if not ids or len(known) < len(ids):
        return None
    return torch.nn.functional.normalize(vectors.vectors[known].mean(0), dim=0)


def wechsel_rows(
    base: Tensor,
    ids: Sequence[int],
    source: TokenVectors,
    target: TokenVectors,
    alignment: Alignment,
    *,
    neighbours: int,
    temperature: float,
) -> dict[int, tuple[Tensor, list[int], list[float]]]:
    """For each new id with a vector: its row (D,), the source ids it came from and their weights."""
    place = target.place
    width = len(alignment.rotation)
    sources = torch.nn.functional.normalize(source.vectors[:, :width], dim=1)
    found = {}
    for i in ids:
        if i not in place:
            continue
        vector = torch.nn.functional.normalize(target.vectors[place[i], :width] @ alignment.rotation, dim=0)
        best = (sources @ vector).topk(min(neighbours, len(sources)))
        weights = torch.softmax(best.values / temperature, 0)
        parents = [source.ids[j] for j in best.indices.tolist()]
        row = (base[parents].float() * weights[:, None]).sum(0)
        found[i] = (row, parents, weights.tolist())
    return found
