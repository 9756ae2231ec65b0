"""Give every new row a value and say from what: the method, the parents and their weights, the norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import polars as pl
from torch import Tensor

from vocabgraft.embedding.blend import (
    Blend,
    blended,
    calibrated,
    first_subword,
    length_weighted,
    mean_of_all,
    parts_norms,
    random_rows,
    subword_mean,
)

Method = Literal[
    "random",
    "mean",
    "subword-mean",
    "length-weighted",
    "first-subword",
    "eeve",
    "wechsel",
    "omp",
    "hybrid",
    "distilled",
]
METHODS: tuple[Method, ...] = get_args(Method)
ALIGNED = ("wechsel", "omp", "hybrid")
"""Methods that want blends of neighbours in another language (`wechsel`); without one a row is a subword mean."""


@dataclass(frozen=True)
class RowOrigin:
    """Where one new row came from: row = weighted sum of the parents' rows, scaled to `norm`.

    No parents: the mean of all rows, or noise.
    """

    id: int
    piece: str
    route: str
    method: str
    parts: tuple[int, ...]
    parents: tuple[int, ...]
    weights: tuple[float, ...]
    norm: float


@dataclass(frozen=True)
class NewPieces:
    """The pieces that need rows: their ids, how they are written, and the base ids that spell them."""

    ids: Sequence[int]
    pieces: Sequence[str]
    parts: Sequence[Sequence[int]]


def build_rows(
    base: Tensor,
    new: NewPieces,
    *,
    method: Method = "subword-mean",
    route: str = "input",
    aligned: Mapping[int, Blend] | None = None,
    share: float = 1.0,
    norm: float = 0.0,
    length: Callable[[int], float] = lambda i: 1.0,
    seed: int = 0,
) -> tuple[Tensor, list[RowOrigin]]:
    """Rows (N, D) float32 of the new pieces for one route, from the base's matrix (V, D) of that route.

    eeve: subword mean on the input route, first subword on the output route. wechsel, omp: the blend that `aligned`
    has for the id. hybrid: that blend mixed into the subword mean with weight `share`, both at one norm. distilled: the
    subword mean, which the caller goes on to train. norm: goal as a share of the mean norm of the parts' rows; 0 leaves
    rows as the method gives them. length: letters that a base id spells (length-weighted).
    """
    if method in ("random", "mean"):
        count = len(new.ids)
        rows = mean_of_all(base, count) if method == "mean" else random_rows(base, count, seed=seed)
        blends, names = [Blend((), ())] * count, [str(method)] * count
    else:
        blends, names = _blends(new, method, route, aligned or {}, share, base, length)
        rows = blended(base, blends)
    if norm:
        rows = calibrated(rows, parts_norms(base, new.parts), norm)
    return rows, _origins(new, route, names, blends, rows)


def _blends(
    new: NewPieces,
    method: Method,
    route: str,
    aligned: Mapping[int, Blend],
    share: float,
    base: Tensor,
    length: Callable[[int], float],
) -> tuple[list[Blend], list[str]]:
    if method == "length-weighted":
        return length_weighted(new.parts, length), [str(method)] * len(new.parts)
    if method == "first-subword" or (method == "eeve" and route == "output"):
        return first_subword(new.parts), ["first-subword"] * len(new.parts)
    blends = subword_mean(new.parts)
    names = ["subword-mean"] * len(blends)
    if method not in ALIGNED:
        return blends, names
    places = [n for n, i in enumerate(new.ids) if i in aligned]
    others = [aligned[new.ids[n]] for n in places]
    if method != "hybrid":
        for n, other in zip(places, others, strict=True):
            blends[n], names[n] = other, method
        return blends, names
    # Means of many rows are shorter than means of few: weights are of rows at one norm.
    sizes = blended(base, [blends[n] for n in places]).norm(dim=1) / blended(base, others).norm(dim=1).clamp_min(1e-8)
    for n, other, size in zip(places, others, sizes.tolist(), strict=True):
        plain = blends[n]
        weights = [w * (1 - share) for w in plain.weights] + [w * share * size for w in other.weights]
        blends[n], names[n] = Blend(plain.parents + other.parents, tuple(weights)), "subword-mean + wechsel"
    return blends, names


def _origins(new: NewPieces, route: str, names: list[str], blends: Sequence[Blend], rows: Tensor) -> list[RowOrigin]:
    norms = rows.norm(dim=1).tolist()
    return [
        RowOrigin(
            i,
            new.pieces[n],
            route,
            names[n],
            tuple(new.parts[n]),
            blends[n].parents,
            tuple(round(w, 4) for w in blends[n].weights),
            round(norms[n], 4),
        )
        for n, i in enumerate(new.ids)
    ]


def write_rows(
    origins: Sequence[RowOrigin], seen: Sequence[tuple[float, Sequence[str], Sequence[float]]], path: Path
) -> None:
    """Write Parquet, one line a row: its origin, the share of base rows with a smaller norm, the pieces whose rows are
    nearest, and their cosines."""
    rows = [asdict(origin) for origin in origins]
    ranks, names, cosines = zip(*seen, strict=True) if seen else ((), (), ())
    frame = pl.DataFrame(rows, schema=_COLUMNS).with_columns(
        pl.Series("norm_rank", ranks, pl.Float32),
        pl.Series("nearest", [list(n) for n in names], pl.List(pl.String)),
        pl.Series("cosines", [list(c) for c in cosines], pl.List(pl.Float32)),
    )
    frame.write_parquet(path, compression="zstd")


_COLUMNS = {
    "id": pl.Int64,
    "piece": pl.String,
    "route": pl.String,
    "method": pl.String,
    "parts": pl.List(pl.Int64),
    "parents": pl.List(pl.Int64),
    "weights": pl.List(pl.Float32),
    "norm": pl.Float32,
}
