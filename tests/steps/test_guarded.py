"""A stage under `[watch]`: replay text is looked at while it trains, and the manifest tells what was seen."""

from __future__ import annotations

import pytest

from vocabgraft.errors import ProofError

HARMFUL = [
    'stage.0.train=["output.old","output.new"]',
    "stage.0.lr.old=0.3",
    "stage.0.tokens=4096",
    "watch.limit=0.5",
    "watch.every=512",
]


def test_a_stage_that_forgets_is_stopped_and_told(done) -> None:
    with pytest.raises(ProofError, match=r"after \d steps retained text stands at .*nothing was published"):
        done(*HARMFUL, until="31")


def test_a_stage_that_forgets_goes_back(done) -> None:
    run = done(*HARMFUL, "watch.then=roll back", "training.warmup=0.9", until="31")
    metrics = run.manifest("31-stage1").metrics
    looks = metrics["guard"]["looks"]
    assert looks[-1][1] > metrics["guard"]["limit"] >= looks[-2][1]
    assert metrics["steps"] == looks[-2][0] == len(metrics["losses"])
    assert metrics["bits_per_byte"]["replay"] == looks[-2][1], "what is published is what was seen to be good"


def test_a_harmless_stage_is_looked_at_to_its_end(done) -> None:
    metrics = done("watch.limit=0.5", "watch.every=512", until="31").manifest("31-stage1").metrics
    assert [done for done, _ in metrics["guard"]["looks"]] == [1, 2]
