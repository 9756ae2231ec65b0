from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from vocabgraft.report import figures, numbers
from vocabgraft.report.ledger import Ledger


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (119.6, "2 min 00 s"), (7500, "2 h 05 min"), (None, "")],
)
def test_durations_read_naturally(seconds: float | None, text: str) -> None:
    assert numbers.duration(seconds) == text


def test_what_is_not_finite_says_so() -> None:
    assert {numbers.decimal(math.nan), numbers.whole(math.inf), numbers.percent(-math.inf)} == {"not finite"}


def test_what_is_not_a_number_is_empty() -> None:
    assert {numbers.decimal(None), numbers.whole("7"), numbers.percent(True), numbers.size({})} == {""}


def test_changes_are_signed_and_relative() -> None:
    assert numbers.change(2.0, 1.5) == "−25.0 %"
    assert numbers.change(1.0, 1.031) == "+3.1 %"
    assert numbers.change(0.0, 1.0) == numbers.change(None, 1.0) == ""


def test_before_and_after_come_from_the_same_text(
    metrics: dict[str, dict[str, Any]], make: Callable[..., Ledger]
) -> None:
    """The final evaluation reads more text than the probes: its own base, never the probe's."""
    assert figures.before_after(make(metrics), "target") == (1.533, 1.444)
    metrics["51-korean"]["bits_per_byte"] = {"final": 1.444}
    assert figures.before_after(make(metrics), "target") == (1.511, 1.401)
    del metrics["22-initialise"]
    assert figures.before_after(make(metrics), "target") == (None, None)


def test_every_measured_step_has_a_key_figure(ledger: Ledger) -> None:
    empty = [key for key in ledger.manifests if not figures.key_figure(ledger, key)]
    assert empty == ["00-environment"]
