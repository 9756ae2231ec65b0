"""Rows that text does not hold are told, and steps that bfloat16 cannot show."""

from __future__ import annotations

import numpy as np
import torch

from vocabgraft.training.meters import FEW, RowMeter, sightings


def test_sightings_are_counts_of_the_steps_tokens(tied_world) -> None:
    rows, batch_at = tied_world.graft().rows, tied_world.mixture().batch
    found = sightings(batch_at, 3, rows)
    tokens = np.concatenate([batch_at(n).tokens.ravel() for n in range(3)])
    assert found.tolist() == [int((tokens == i).sum()) for i in rows.ids.tolist()]
    assert found.sum() > 0


def test_a_meter_tells_movement_norms_and_what_was_lost(tied_world) -> None:
    rows = tied_world.graft(dtype="bfloat16", untie=True).rows
    meter = RowMeter(rows)
    with torch.no_grad():
        rows.new["input"][0] *= 2
        rows.new["output"].mul_(1 + 2**-12)  # too little for bfloat16
    seen = np.zeros(len(rows.ids), np.int64)
    seen[:3] = FEW
    found = meter.read(seen)
    assert (found["never_seen"], found["seen"]["few"]) == (len(seen) - 3, len(seen) - 3)
    assert found["routes"]["input"]["stuck"] == 0.0
    assert found["routes"]["output"]["stuck"] > 0.9
    assert found["routes"]["input"]["norms"][2] > found["routes"]["output"]["norms"][2]
    assert found["routes"]["output"]["moved"] < 1e-3
