"""Starts are read with all their problems at once; the table is sorted by what the probe found."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from vocabgraft.embedding.initialise import METHODS
from vocabgraft.errors import RecipeError
from vocabgraft.evaluation.statistics import Mean
from vocabgraft.steps.bakeoff import Bakeoff, Row, Start, _Trials, all_starts, read_starts

OWN = Start("hybrid", 0.75)


def test_a_start_is_a_method_and_a_norm() -> None:
    assert read_starts(["mean", "eeve@0", "hybrid@1.25"], OWN) == [
        Start("mean", 0.75),
        Start("eeve", 0.0),
        Start("hybrid", 1.25),
    ]
    assert {s.method for s in read_starts([], OWN)} == set(METHODS)
    assert OWN in all_starts(OWN)
    assert len(set(all_starts(Start("mean", 0.0)))) == len(all_starts(Start("mean", 0.0))), "no start twice"


def test_all_wrong_starts_are_told_at_once() -> None:
    with pytest.raises(RecipeError, match=r"--start has 3 problems") as e:
        read_starts(["mean@x", "mean", "avarage", "mean@-1"], OWN)
    assert "'avarage' is no start" in str(e.value)


def test_trials_that_ended_are_not_done_again(tmp_path: Path) -> None:
    kept, start = tmp_path / "trials.jsonl", Start("mean", 0.5)

    def trials(steps: int = 50, **recipe: object) -> _Trials:
        manifest = SimpleNamespace(fingerprint="f")
        run = SimpleNamespace(manifest=lambda key: manifest)
        dumped = SimpleNamespace(model_dump=lambda **how: recipe)
        return _Trials(SimpleNamespace(run=run, recipe=dumped), kept, steps)

    assert trials().of(start, 1) is None
    trials().keep(start, 1, {"bpb_probe": 1.5})
    assert trials().of(start, 1) == {"bpb_probe": 1.5}
    assert trials().of(start, 2) is None
    assert trials(steps=51).of(start, 1) is None, "another probe"
    assert trials(data="other").of(start, 1) is None, "another recipe"
    assert trials(init={"vector_size": 3}).of(start, 1) is None, "another blend"
    assert trials(init={"max_rise": 3.0, "relative_lr": 0.1}).of(start, 1), "a gate and a teaching that it has not"
    assert trials(init={"relative_lr": 0.1}).key(Start("distilled", 0.5), 1) != trials().key(Start("distilled", 0.5), 1)

    with kept.open("a") as f:
        f.write('{"key": "cut o')  # killed while it wrote
    trials().keep(start, 2, {"bpb_probe": 1.6})
    assert [trials().of(start, seed) for seed in (1, 2)] == [{"bpb_probe": 1.5}, {"bpb_probe": 1.6}]


def test_the_table_recommends_the_best_after_the_probe() -> None:
    def row(name: str, at_once: float, after: float) -> Row:
        m = [Mean(x, x - 0.01, x + 0.01) for x in (at_once, after, 0.001, 2.0)]
        return Row(name, *m)

    rows = (row("omp@1", 1.5, 1.2), row("hybrid@0.75", 1.4, 1.3))
    found = Bakeoff(rows, base_bpb=1.0, default="hybrid@0.75", kl_bound=0.02, steps=50, tokens=51_200, seeds=3)
    assert found.as_json()["best"] == "omp@1"
    assert found.recommended() == '[init]\nmethod = "omp"\nnorm = 1'
    assert "1.3000 ± 0.0100" in found.text()
    assert found.text().splitlines()[2].endswith("(the recipe's)")
