"""Give every new row a value and say from what: the method, the parents and their weights, the norm."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from vocabgraft.embedding.subword import calibrate_norms, subword_mean

WechselRow = tuple[Tensor, list[int], list[float]]


@dataclass(frozen=True)
class RowOrigin:
    """Where one new row came from."""

    id: int
    piece: str
    method: str
    parts: tuple[int, ...]
    neighbours: tuple[int, ...]
    weights: tuple[float, ...]
    norm: float


def build_rows(
    base: Tensor,
    ids: Sequence[int],
    pieces: Sequence[str],
    parts: Sequence[Sequence[int]],
    wechsel: Mapping[int, WechselRow],
    *,
    share: float,
    norm: float = 1.0,
) -> tuple[Tensor, list[RowOrigin]]:
    """Mix subword means with WECHSEL rows in the given share where there is one; norms calibrated.

    base: (V, D). Returns (N, D) float32 rows in the order of `ids`, and their origins. share 0 is the plain
    subword mean, 1 the plain WECHSEL row (with the subword mean where no vector supports it). norm: goal as a
    share of the parts' mean norm.
    """
    rows = calibrate_norms(subword_mean(base, parts), base, parts)
    methods = []
    for n, i in enumerate(ids):
        if share > 0 and i in wechsel:
            other = wechsel[i][0]
            rows[n] = (1 - share) * rows[n] + share * other * (rows[n].norm() / other.norm().clamp_min(1e-8))
            methods.append("wechsel" if share == 1 else "subword-mean + wechsel")
        else:
            methods.append("subword-mean")
    rows = calibrate_norms(rows, base, parts, norm)
    origins = [
        RowOrigin(
            i,
            pieces[n],
            methods[n],
            tuple(parts[n]),
            tuple(wechsel[i][1]) if methods[n] != "subword-mean" else (),
            tuple(round(w, 4) for w in wechsel[i][2]) if methods[n] != "subword-mean" else (),
            round(float(rows[n].norm()), 4),
        )
        for n, i in enumerate(ids)
    ]
    return rows, origins


def write_origins(origins: Iterable[RowOrigin], path: Path) -> Counter[str]:
    """Write one JSON line a row; returns rows per method."""
    counts: Counter[str] = Counter()
    with path.open("w", encoding="utf-8", newline="\n") as f:
        for origin in origins:
            counts[origin.method] += 1
            f.write(json.dumps(asdict(origin), ensure_ascii=False) + "\n")
    return counts
