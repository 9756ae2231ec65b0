"""WECHSEL, written anew: a new row is a weighted mean of base rows whose words mean the same.

Minixhofer et al., NAACL 2022 (arXiv 2112.06598): static vectors of both languages are aligned by orthogonal
Procrustes on a bilingual dictionary; each target piece is a blend of its nearest source tokens, weighted by a softmax
over cosine similarity. Pieces without a vector get no blend here; the caller decides and records it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vocabgraft.embedding.blend import Blend
from vocabgraft.embedding.vectors import TokenVectors

_HELD_OUT = 10  # one dictionary word in so many tests the alignment
_TOGETHER = 512  # vectors that are matched at a time
_RIDGE = 1e-6  # two source tokens may have the same vector


@dataclass(frozen=True)
class Alignment:
    """Rotation (K, K) from target to source vectors, and how far it can be trusted.

    pairs: pairs that carried it. fit: their mean cosine after rotation. held_out: pairs that were left out of another
    such rotation; precision: share of these whose source word is the nearest, by cosine, of all source words of the
    pairs (precision@1); None when no pair was left out.
    """

    rotation: Tensor
    pairs: int
    fit: float
    held_out: int
    precision: float | None


def align(
    pairs: Iterable[tuple[str, str]],
    source: TokenVectors,
    target: TokenVectors,
    encode_source: Callable[[str], Sequence[int]],
    encode_target: Callable[[str], Sequence[int]],
) -> Alignment | None:
    """Orthogonal Procrustes on the (source word, target word) pairs whose tokens all have vectors.

    Vectors of unequal width are cut to the narrower: their dimensions come in falling importance. None when fewer pairs
    than dimensions are covered: such a rotation would fit anything.
    """
    covered, lefts, rights = [], [], []
    source_place, target_place = source.place, target.place
    for pair in pairs:
        left = _word_vector(encode_source(pair[0]), source, source_place)
        right = _word_vector(encode_target(pair[1]), target, target_place)
        if left is not None and right is not None:
            covered.append(pair)
            lefts.append(left)
            rights.append(right)
    width = min(source.vectors.shape[1], target.vectors.shape[1])
    if len(covered) < width:
        return None
    a, b = torch.stack(rights)[:, :width], torch.stack(lefts)[:, :width]
    rotation = _procrustes(a, b)
    fit = torch.nn.functional.cosine_similarity(a @ rotation, b, dim=1).mean()
    left_out = torch.tensor([_is_held_out(target_word) for _, target_word in covered])
    carried = int((~left_out).sum())
    precision = _precision(covered, a, b, left_out) if carried >= width and left_out.any() else None
    return Alignment(rotation, len(covered), float(fit), int(left_out.sum()) if precision is not None else 0, precision)


def _procrustes(a: Tensor, b: Tensor) -> Tensor:
    """The rotation (K, K) that brings a (N, K) nearest to b (N, K) (Schoenemann, 1966)."""
    u, _, vh = torch.linalg.svd(a.T @ b)
    return u @ vh


def _is_held_out(word: str) -> bool:
    """One word in ten, fixed by its hash: all pairs of a word are on one side."""
    return hashlib.sha256(word.encode()).digest()[0] % _HELD_OUT == 0


def _precision(pairs: Sequence[tuple[str, str]], a: Tensor, b: Tensor, left_out: Tensor) -> float:
    """Precision@1 of the pairs left out under a rotation that did not see them."""
    turned = a[left_out] @ _procrustes(a[~left_out], b[~left_out])
    nearest = (torch.nn.functional.normalize(turned, dim=1) @ b.T).argmax(1).tolist()
    known = set(pairs)
    asked = [pairs[n][1] for n in left_out.nonzero().flatten().tolist()]
    return sum((pairs[n][0], word) in known for n, word in zip(nearest, asked, strict=True)) / len(asked)


def _word_vector(ids: Sequence[int], vectors: TokenVectors, place: dict[int, int]) -> Tensor | None:
    known = [place[i] for i in ids if i in place]
    if not ids or len(known) < len(ids):
        return None
    return torch.nn.functional.normalize(vectors.vectors[known].mean(0), dim=0)


def wechsel_blends(
    ids: Sequence[int],
    source: TokenVectors,
    target: TokenVectors,
    alignment: Alignment,
    *,
    neighbours: int,
    temperature: float,
) -> dict[int, Blend]:
    """For each new id with a vector: its nearest source tokens, weighted by a softmax of their cosines."""
    new, vectors, sources = _in_one_space(ids, source, target, alignment)
    found = {}
    for i, vector in zip(new, vectors, strict=True):
        best = (sources @ vector).topk(min(neighbours, len(sources)))
        weights = torch.softmax(best.values / temperature, 0)
        found[i] = Blend(tuple(source.ids[j] for j in best.indices.tolist()), tuple(weights.tolist()))
    return found


def omp_blends(
    ids: Sequence[int], source: TokenVectors, target: TokenVectors, alignment: Alignment, *, atoms: int
) -> dict[int, Blend]:
    """For each new id with a vector: the few source tokens whose vectors sum up to it best, weights of either sign.

    Orthogonal matching pursuit (Pati et al., 1993), as mergekit-tokensurgeon uses it for new rows (Goddard and
    Fernandes Neto, arXiv 2506.06607); the space here is that of the aligned static vectors.
    """
    new, vectors, sources = _in_one_space(ids, source, target, alignment)
    found = {}
    for start in range(0, len(new), _TOGETHER):
        chosen, weights = matching_pursuit(vectors[start : start + _TOGETHER], sources, min(atoms, len(sources)))
        for i, places, row in zip(new[start:], chosen.tolist(), weights.tolist(), strict=False):
            found[i] = Blend(tuple(source.ids[j] for j in places), tuple(row))
    return found


def _in_one_space(
    ids: Sequence[int], source: TokenVectors, target: TokenVectors, alignment: Alignment
) -> tuple[list[int], Tensor, Tensor]:
    """Those of `ids` that have vectors; these in the source's space (N, K), and the source's (M, K); of length 1."""
    place, width = target.place, len(alignment.rotation)
    new = [i for i in ids if i in place]
    turned = target.vectors[[place[i] for i in new], :width] @ alignment.rotation
    normalize = torch.nn.functional.normalize
    return new, normalize(turned, dim=1), normalize(source.vectors[:, :width], dim=1)


def matching_pursuit(vectors: Tensor, sources: Tensor, atoms: int) -> tuple[Tensor, Tensor]:
    """(N, K) vectors from `atoms` of (M, K) sources each: places (N, atoms), least-squares weights (N, atoms)."""
    rest = vectors
    chosen = torch.zeros(len(vectors), 0, dtype=torch.long)
    weights = torch.zeros(len(vectors), 0)
    for _ in range(atoms):
        fit = (rest @ sources.T).abs().scatter_(1, chosen, -1.0)
        chosen = torch.cat([chosen, fit.argmax(1, keepdim=True)], 1)
        picked = sources[chosen]  # (N, s, K)
        gram = picked @ picked.transpose(1, 2) + _RIDGE * torch.eye(chosen.shape[1])
        weights = torch.linalg.solve(gram, (picked @ vectors[:, :, None])).squeeze(2)
        rest = vectors - (weights[:, None] @ picked).squeeze(1)
    return chosen, weights
