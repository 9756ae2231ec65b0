"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from vocabgraft.report import numbers


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
