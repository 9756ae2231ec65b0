"""What new rows look like beside the base's: norms, copies of each other, nearest neighbours; and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vocabgraft.embedding.rows import row_norms

_TOGETHER = 128  # new rows compared with all base rows at a time: 134 MB of cosines for 262,144
BIN, _BINS = 0.05, 40


@dataclass(frozen=True)
class Inspection:
    """New rows of one matrix against its old rows.

    norms: least, median and most, as a share of the old rows' median. ranks: (N,) share of old rows of smaller norm.
    histogram: new rows by such a share, in bins of `BIN`; the last holds all above. copies: new rows that equal an
    earlier one. broken: rows with a number that is not finite, or of norm 0.
    """

    norms: tuple[float, float, float]
    ranks: Tensor
    histogram: tuple[int, ...]
    copies: int
    broken: int


def inspect_rows(rows: Tensor, base: Tensor, old: Tensor) -> Inspection:
    """Look at new rows (N, D) beside base rows (V, D), of which `old` (V,) bool tells those in use."""
    norms = rows.float().norm(dim=1).cpu()
    known = row_norms(base).cpu()[old.cpu()].sort().values
    typical = float(known[len(known) // 2])
    finite = norms[norms.isfinite()]
    spread = (float(finite.min()), float(finite.median()), float(finite.max())) if len(finite) else (0.0, 0.0, 0.0)
    stored = rows.to(base.dtype).cpu()
    return Inspection(
        norms=tuple(round(x / typical, 4) for x in spread),
        ranks=torch.searchsorted(known, norms) / len(known),
        histogram=tuple(torch.bincount((finite / typical / BIN).long().clamp(max=_BINS - 1), minlength=_BINS).tolist()),
        copies=len(stored) - len({row.numpy().tobytes() for row in stored.view(torch.uint8)}),
        broken=int((~norms.isfinite() | (norms == 0)).sum()),
    )


def nearest(rows: Tensor, base: Tensor, old: Tensor, count: int = 3) -> tuple[Tensor, Tensor]:
    """Ids (N, count) and cosines of the old base rows (V, D) that point most nearly as each new row (N, D) does."""
    scale = 1 / row_norms(base).clamp_min(1e-8)
    scale = torch.where(old.to(scale.device), scale, 0.0)
    ids, cosines = [], []
    for part in torch.nn.functional.normalize(rows.float(), dim=1).split(_TOGETHER):
        found = (part.to(base) @ base.T).float().mul_(scale).topk(min(count, len(base)), dim=1)
        ids.append(found.indices.cpu())
        cosines.append(found.values.cpu())
    return torch.cat(ids), torch.cat(cosines)


@dataclass(frozen=True)
class Limits:
    """What a start may look like; shares of the new rows."""

    least_norm: float
    most_norm: float
    copies: float
    unused: float


def problems(found: Inspection, count: int, unused: int, limits: Limits) -> list[str]:
    """Everything that is out of bounds, each with its likely cause and what to do."""
    least, _, most = found.norms
    told = []
    if found.broken:
        told.append(
            f"{found.broken} rows are zero or not finite: their parents cancel out; try init.method 'subword-mean'"
        )
    if least < limits.least_norm or most > limits.most_norm:
        told.append(
            f"norms reach from {least:.2f} to {most:.2f} of the base's median, init allows {limits.least_norm} to "
            f"{limits.most_norm}: means of unlike rows are short; set init.norm between 0.5 and 1"
        )
    if found.copies > limits.copies * count:
        told.append(
            f"{found.copies} of {count} rows equal another new row, init.max_copies allows {limits.copies:.0%}: the "
            "model cannot tell such pieces apart; init.method 'first-subword', 'eeve' and 'mean' do this, take another"
        )
    if unused > limits.unused * count:
        told.append(
            f"{unused} of {count} pieces never occur in the training text, init.max_unused allows {limits.unused:.0%}: "
            "their rows would never learn; raise tokenizer.min_count or lower tokenizer.pieces"
        )
    return told


def texts_of(ids: Sequence[Sequence[int]], names: Sequence[str]) -> list[list[str]]:
    """Pieces of ids, row by row."""
    return [[names[i] for i in row] for row in ids]
