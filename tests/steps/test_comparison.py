"""Two runs are compared on what both were asked, and only on the same text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from vocabgraft.errors import RunError
from vocabgraft.recipe import load_recipe
from vocabgraft.run import Manifest, Run
from vocabgraft.steps.comparison import STEPS, compare_runs


def evaluated(folder: Path, right: Sequence[bool], *, first: int = 0, text: str = "a", bits: float = 8.0) -> Run:
    """A run with nothing but what 51 and 52 write."""
    run = Run.create(folder, load_recipe("tiny-cpu"), "")
    for key in STEPS.values():
        out = run.begin(key, "print")
        questions = [{"id": str(n), "set": "s", "cluster": "", "options": 5} for n in range(first, first + len(right))]
        answers = [{"id": q["id"], "right": r} for q, r in zip(questions, right, strict=True)]
        (out / "items.json").write_text(json.dumps({"questions": questions, "final": answers}))
        (out / "windows.json").write_text(
            json.dumps({"sha256": text, "bytes": [10] * 20, "final": [bits + n % 3 for n in range(20)]})
        )
        run.finish(key, Manifest(key, key, "print", {}, {}, [], {}, 0.0, 0.0, {}, [], {}))
    return run


def test_a_clear_difference_is_named_and_says_beside_what(tmp_path: Path) -> None:
    run, other = evaluated(tmp_path / "a", [True] * 60, bits=6.0), evaluated(tmp_path / "b", [False] * 60)
    found = compare_runs(run, other)
    assert "better than tiny-cpu by 100.0 points" in found.sides["target"].answers.sentence
    assert "worse" in compare_runs(other, run).sides["target"].answers.sentence
    assert found.sides["target"].bits == pytest.approx((0.695, 0.895))
    assert found.sides["target"].change.high < 0
    assert json.loads(json.dumps(found.as_json()))["other"] == "tiny-cpu"
    assert "bits per byte: 0.6950 beside 0.8950" in found.text()


def test_retention_is_claimed_of_the_base_language_alone(tmp_path: Path) -> None:
    found = compare_runs(evaluated(tmp_path / "a", [True] * 30), evaluated(tmp_path / "b", [True] * 30))
    assert found.sides["target"].answers.retention == ""
    assert found.sides["replay"].answers.retention in ("kept", "not shown")


def test_only_questions_asked_of_both_count(tmp_path: Path) -> None:
    run, other = evaluated(tmp_path / "a", [True] * 20), evaluated(tmp_path / "b", [True] * 20, first=15)
    assert compare_runs(run, other).sides["target"].asked == (20, 20, 5)
    with pytest.raises(RunError, match="no question was asked of both"):
        compare_runs(run, evaluated(tmp_path / "c", [True] * 20, first=50))


def test_bits_of_other_text_are_not_compared(tmp_path: Path) -> None:
    found = compare_runs(evaluated(tmp_path / "a", [True] * 9), evaluated(tmp_path / "b", [True] * 9, text="b"))
    assert found.sides["target"].bits is None
    assert "not compared" in found.text()


def test_a_run_that_is_not_evaluated_is_refused_with_the_way_out(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "a", [True] * 9)
    with pytest.raises(RunError, match="51-korean is not done; finish the run first"):
        compare_runs(run, Run.create(tmp_path / "b", load_recipe("tiny-cpu"), ""))
