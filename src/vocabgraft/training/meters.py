"""What new rows did in a training: how often text held them, how far they moved, how much of it bfloat16 can show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vocabgraft.corpus.mix import Rows as Batch
from vocabgraft.embedding.rows import Rows, row_norms

FEW = 10  # a row that was seen less often has hardly learnt


def sightings(batch_at: Callable[[int], Batch], steps: int, rows: Rows) -> np.ndarray:
    """(N,) how often the steps' text holds each new row; batches are a pure function of the step, so a resumed training
    tells the same."""
    found = np.zeros(len(rows.is_new), np.int64)
    for step in range(steps):
        found += np.bincount(batch_at(step).tokens.ravel(), minlength=len(found))
    return found[rows.ids.cpu().numpy()]


class RowMeter:
    """Compares new rows before and after."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._before = {route: master.detach().clone() for route, master in rows.new.items()}

    @torch.no_grad()
    def read(self, seen: np.ndarray) -> dict[str, Any]:
        """Figures for a manifest, none where no row is new. seen: what `sightings` found.

        stuck: share of numbers that moved in float32 and not in the live type. norms: least, median and most, as a
        share of the old rows' median. moved: median distance of a row from where it began, as a share of its norm.
        """
        if not len(seen):
            return {}
        routes = {}
        for route in self._rows.routes("new"):
            now, before = self._rows.new[route].detach(), self._before[route]
            live = self._rows.live[route].dtype
            moved = now != before
            stuck = moved & (now.to(live) == before.to(live))
            norms, typical = now.norm(dim=1), float(row_norms(self._rows.live[route])[~self._rows.is_new].median())
            spread = [float(f(norms)) / typical for f in (torch.min, torch.median, torch.max)]
            routes[route] = {
                "norms": [round(x, 4) for x in spread],
                "moved": round(float(((now - before).norm(dim=1) / before.norm(dim=1).clamp_min(1e-8)).median()), 5),
                "stuck": round(int(stuck.sum()) / max(1, int(moved.sum())), 4),
            }
        return {
            "seen": {"least": int(seen.min()), "median": int(np.median(seen)), "few": int((seen < FEW).sum())},
            "never_seen": int((seen == 0).sum()),
            "routes": routes,
        }
