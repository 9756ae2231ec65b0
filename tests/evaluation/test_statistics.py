"""Intervals and tests against published values, hand computation and simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.evaluation.statistics import (
    Mean,
    binomial_two_sided,
    mcnemar,
    mean_of_runs,
    paired_change,
    wilson,
)


def exact(right: int, n: int, p: Fraction) -> Fraction:
    """The two-sided test in rational numbers."""
    chances = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    return sum((c for c in chances if c <= chances[right]), Fraction(0))


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_wilson_interval_is_the_published_one(right: int, n: int, low: float, high: float) -> None:
    found = wilson(right, n)
    assert (found.accuracy, found.n) == (right / n, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(n=st.integers(1, 500), data=st.data())
def test_the_wilson_interval_holds_the_share_stays_in_bounds_and_mirrors(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    found, mirrored = wilson(right, n), wilson(n - right, n)
    assert 0 <= found.low <= right / n + 1e-12
    assert right / n - 1e-12 <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-12)


def test_no_question_gives_the_whole_interval() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


@pytest.mark.parametrize(("n", "p"), [(20, 0.2), (40, 0.5), (80, 0.05), (200, 0.9)])
def test_the_wilson_interval_covers_the_truth_about_95_times_in_100(n: int, p: float) -> None:
    draws = np.random.default_rng(0).binomial(n, p, 4000)
    covered = np.mean([found.low <= p <= found.high for found in (wilson(int(k), n) for k in draws)])
    assert 0.92 <= covered <= 0.985


@given(n=st.integers(1, 60), data=st.data())
def test_the_binomial_test_equals_rational_arithmetic(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    p = data.draw(st.sampled_from([Fraction(1, 2), Fraction(1, 5), Fraction(1, 4), Fraction(9, 10)]))
    assert binomial_two_sided(right, n, float(p)) == pytest.approx(float(exact(right, n, p)), rel=1e-6)


@given(n=st.integers(0, 400), data=st.data())
def test_the_binomial_test_is_symmetric_at_one_half(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    assert binomial_two_sided(right, n, 0.5) == pytest.approx(binomial_two_sided(n - right, n, 0.5), rel=1e-9)


def test_the_binomial_test_works_on_thousands_of_questions() -> None:
    assert binomial_two_sided(602, 3009, 0.2) == pytest.approx(1.0, abs=0.02)
    assert 0.02 < binomial_two_sided(650, 3009, 0.2) < 0.05
    assert binomial_two_sided(1500, 3009, 0.2) < 1e-100
    assert binomial_two_sided(50_000, 100_000, 0.5) == 1.0


def pairs(both: int, gained: int, lost: int, neither: int) -> tuple[list[bool], list[bool]]:
    before = [True] * both + [False] * gained + [True] * lost + [False] * neither
    after = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return before, after


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (6, 0, 2 / 64),
        (8, 1, 2 * (1 + 9) / 512),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
        (7, 7, 1.0),
    ],
)
def test_mcnemar_equals_the_hand_computation(gained: int, lost: int, p: float) -> None:
    assert mcnemar(*pairs(20, gained, lost, 13)) == pytest.approx(p, rel=1e-9)
    assert mcnemar(*pairs(0, lost, gained, 0)) == pytest.approx(p, rel=1e-9)


def test_mcnemar_wants_the_same_items() -> None:
    with pytest.raises(ValueError, match="shorter"):
        mcnemar([True], [])


def windows(n: int, change: float, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[int]]:
    random = np.random.default_rng(seed)
    before = random.uniform(500, 1500, n)
    return before, before * (1 + change) * (1 + random.normal(0, noise, n)), [1000] * n


def test_a_change_is_detected_on_paired_windows_though_windows_differ_much() -> None:
    before, after, sizes = windows(40, -0.02, 0.01)
    found = paired_change(before, after, sizes)
    assert found.relative == pytest.approx(after.sum() / before.sum() - 1)
    assert found.low <= found.relative <= found.high < 0
    assert before.std() / before.mean() > 0.2


def test_no_change_is_not_detected() -> None:
    before, after, sizes = windows(40, 0.0, 0.01)
    assert paired_change(before, after, sizes).low < 0 < paired_change(before, after, sizes).high
    same = paired_change(before, before, sizes)
    assert (same.relative, same.low, same.high) == (0, 0, 0)


def test_the_paired_interval_covers_the_truth_about_95_times_in_100() -> None:
    covered = 0
    for seed in range(200):
        found = paired_change(*windows(30, -0.01, 0.02, seed), draws=400)
        covered += found.low <= -0.01 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_paired_interval_is_the_same_every_time() -> None:
    data = windows(20, 0.01, 0.05)
    assert paired_change(*data) == paired_change(*data)


def test_windows_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="do not pair up"):
        paired_change([1.0, 2.0], [1.0], [1, 1])
    with pytest.raises(ValueError, match="do not pair up"):
        paired_change([1.0], [1.0], [1, 1])


def test_the_mean_of_a_few_runs_has_students_interval() -> None:
    found = mean_of_runs([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - 2.0 == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert found.high - 2.0 == pytest.approx(2.0 - found.low)


def test_the_interval_of_a_few_runs_holds_the_truth_nineteen_times_in_twenty() -> None:
    draw = np.random.default_rng(0)
    for n in (2, 5, 10):
        found = [mean_of_runs(draw.normal(3.0, 2.0, n).tolist()) for _ in range(2000)]
        assert np.mean([m.low <= 3.0 <= m.high for m in found]) == pytest.approx(0.95, abs=0.02)


def test_a_single_run_has_no_interval() -> None:
    assert mean_of_runs([1.5]) == Mean(1.5, None, None)
