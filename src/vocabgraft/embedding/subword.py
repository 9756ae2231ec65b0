"""New rows from the pieces that used to spell them (EEVE, arXiv 2402.14714: input rows as the subword mean)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def subword_mean(base: Tensor, parts: Sequence[Sequence[int]]) -> Tensor:
    """Mean of the base rows (V, D) of each piece's parts -> (N, D) float32.

    Means of unlike vectors are short: see `calibrate_norms`.
    """
    return torch.stack([base[list(p)].float().mean(0) for p in parts])


def calibrate_norms(rows: Tensor, base: Tensor, parts: Sequence[Sequence[int]], share: float = 1.0) -> Tensor:
    """Scale each row (N, D) to `share` of the mean norm of its parts' rows.

    Gemma's rows have almost one norm (270M: 1.028-1.035). As an input a row wants that norm; as an output a
    shorter one is a prior for "rare", and on a tied matrix one value serves both (docs/log.md: best near 0.7).
    """
    goal = share * torch.stack([base[list(p)].float().norm(dim=1).mean() for p in parts])
    return rows * (goal / rows.norm(dim=1).clamp_min(1e-8))[:, None]
