"""Two finished runs on the same items and the same text: a recipe beside its control, or beside another recipe."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from vocabgraft.errors import RunError
from vocabgraft.evaluation.statistics import Change, paired_change
from vocabgraft.evaluation.verdicts import Comparison, Paired, compare
from vocabgraft.run import Run

STEPS = {"target": "51-korean", "replay": "52-english"}


@dataclass(frozen=True)
class Side:
    """One language: `answers` over all questions that both were asked; bits per byte of the first, then the second."""

    answers: Comparison
    asked: tuple[int, int, int]
    """Questions of the first run, of the second, of both."""
    bits: tuple[float, float] | None
    change: Change | None
    """Of the first run's bits per byte against the second's; None where they measured other text."""


@dataclass(frozen=True)
class RunComparison:
    """A run beside another."""

    run: str
    other: str
    sides: dict[str, Side]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    def text(self) -> str:
        """What may be said, a paragraph for each language."""
        lines = [f"{self.run}, beside {self.other}"]
        for name, side in self.sides.items():
            lines.append(f"  {name}: {side.answers.sentence}")
            lines.append(f"    questions asked of both: {side.asked[2]} (of {side.asked[0]} and {side.asked[1]})")
            if side.bits is None or side.change is None:
                lines.append("    bits per byte: not compared, the two were measured on other text")
                continue
            one, two, found = *side.bits, side.change
            bounds = f"95 % interval {found.low:+.1%} to {found.high:+.1%}"
            lines.append(f"    bits per byte: {one:.4f} beside {two:.4f} ({found.relative:+.1%}, {bounds})")
        return "\n".join(lines)


def compare_runs(run: Run, other: Run) -> RunComparison:
    """Compare what two runs' final models did. RunError where one is not evaluated or they share no question."""
    names = run.recipe.name, other.recipe.name
    margin = run.recipe.evaluate.margin / 100
    return RunComparison(
        *names,
        {side: _side(side, run, other, names[1], margin if side == "replay" else None) for side in STEPS},
    )


def _side(side: str, run: Run, other: Run, beside: str, margin: float | None) -> Side:
    mine, theirs = (_answers(r, STEPS[side]) for r in (run, other))
    shared = [key for key in mine if key in theirs]
    if not shared:
        raise RunError(f"{run.folder} and {other.folder}: no question was asked of both; give them the same [evaluate]")
    asked = [mine[key] for key in shared]
    pair = Paired(
        side,
        [theirs[key]["right"] for key in shared],
        [each["right"] for each in asked],
        sum(1 / each["options"] for each in asked) / len(asked),
        [each["cluster"] or each["id"] for each in asked] if any(each["cluster"] for each in asked) else None,
    )
    (answers,) = compare([pair], margin=margin, beside=beside)
    one, two = (_read(r, STEPS[side], "windows.json") for r in (run, other))
    same = one["sha256"] == two["sha256"]
    total = sum(one["bytes"])
    return Side(
        answers,
        (len(mine), len(theirs), len(shared)),
        (sum(one["final"]) / total, sum(two["final"]) / total) if same else None,
        paired_change(two["final"], one["final"], one["bytes"]) if same else None,
    )


def _answers(run: Run, key: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The final model's answers by set and id, with what is known of each question."""
    found = _read(run, key, "items.json")
    pairs = zip(found["questions"], found["final"], strict=True)
    return {(question["set"], question["id"]): question | answer for question, answer in pairs}


def _read(run: Run, key: str, name: str) -> Any:
    if run.manifest(key) is None:
        raise RunError(f"{run.folder}: {key} is not done; finish the run first: vocabgraft run {run.recipe.name}")
    path = run.path(key, name)
    found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if not found or (name == "items.json" and "questions" not in found):
        raise RunError(f"{run.folder}: {key} is of an older version; redo it with --from {key}")
    return found
