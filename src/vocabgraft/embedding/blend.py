"""New rows as blends of base rows: which rows, with which weights. One small function a method.

Every method here gives, for each new piece, base ids (its parents) and their weights; the row is the weighted sum.
So what a row was built from is known without asking how.

    subword mean       the pieces that used to spell it, equally (input rows of EEVE, arXiv 2402.14714)
    length-weighted    the same, each by the letters it spells
    first subword      a copy of the first of them (output rows of EEVE)
    mean               all rows, equally (Hewitt 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_SUMMED = 8192  # rows of the base that are held in float32 at a time


@dataclass(frozen=True)
class Blend:
    """Parents (base ids) and their weights, of one new row."""

    parents: tuple[int, ...]
    weights: tuple[float, ...]


def subword_mean(parts: Iterable[Sequence[int]]) -> list[Blend]:
    """Each part with the same weight."""
    return [Blend(tuple(p), (1 / len(p),) * len(p)) for p in parts]


def length_weighted(parts: Iterable[Sequence[int]], length: Callable[[int], float]) -> list[Blend]:
    """Each part by `length` of it, the letters it spells; equally where all have none."""
    found = []
    for p in parts:
        sizes = [length(i) for i in p]
        total = sum(sizes)
        found.append(Blend(tuple(p), tuple(s / total for s in sizes) if total else (1 / len(p),) * len(p)))
    return found


def first_subword(parts: Iterable[Sequence[int]]) -> list[Blend]:
    """The first part alone."""
    return [Blend((p[0],), (1.0,)) for p in parts]


def blended(base: Tensor, blends: Sequence[Blend]) -> Tensor:
    """Weighted sums of base rows (V, D) -> (N, D) float32; only rows that are parents are read."""
    parents = torch.tensor([i for b in blends for i in b.parents], dtype=torch.long)
    weights = torch.tensor([w for b in blends for w in b.weights], dtype=torch.float32)
    owner = torch.tensor([n for n, b in enumerate(blends) for _ in b.parents], dtype=torch.long)
    rows = torch.zeros(len(blends), base.shape[1], dtype=torch.float32)
    for start in range(0, len(parents), _SUMMED):
        some = slice(start, start + _SUMMED)
        picked = base[parents[some].to(base.device)].float().cpu()
        rows.index_add_(0, owner[some], picked * weights[some, None])
    return rows


def mean_of_all(base: Tensor, count: int) -> Tensor:
    """The mean of all base rows (V, D), `count` times -> (count, D) float32."""
    return base.mean(0, dtype=torch.float32).cpu().expand(count, -1).clone()


def random_rows(base: Tensor, count: int, *, seed: int) -> Tensor:
    """Normal noise with the base's mean and standard deviation in each dimension -> (count, D) float32: what a
    resized matrix starts with. A baseline, never a good start."""
    mean, square = base.mean(0, dtype=torch.float32), torch.zeros(base.shape[1])
    for some in base.split(_SUMMED):
        square += ((some.float() - mean) ** 2).sum(0).cpu()
    noise = torch.randn(count, base.shape[1], generator=torch.Generator().manual_seed(seed))
    return mean.cpu() + noise * (square / len(base)).sqrt()


def parts_norms(base: Tensor, parts: Sequence[Sequence[int]]) -> Tensor:
    """Mean norm of the rows of each piece's parts, (N,)."""
    used = sorted({i for p in parts for i in p})
    place = {i: n for n, i in enumerate(used)}
    norms = torch.cat([base[torch.tensor(some)].float().norm(dim=1).cpu() for some in _pieces(used)])
    return torch.stack([norms[[place[i] for i in p]].mean() for p in parts])


def _pieces(ids: list[int]) -> list[list[int]]:
    return [ids[at : at + _SUMMED] for at in range(0, len(ids), _SUMMED)]


def calibrated(rows: Tensor, norms: Tensor, share: float = 1.0) -> Tensor:
    """Scale each row (N, D) to `share` of its norm in `norms` (N,).

    Means of unlike vectors are short, and Gemma's rows have almost one norm (270M: 1.028-1.035). As an input a row
    wants that norm; as an output a shorter one is a prior for "rare", and on a tied matrix one value serves both
    (docs/log.md: best near 0.7).
    """
    return rows * (share * norms / rows.norm(dim=1).clamp_min(1e-8))[:, None]
