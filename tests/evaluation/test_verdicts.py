"""The words of a comparison, and how often they would be wrong: simulations of 10,000 trials."""

from __future__ import annotations

import numpy as np
import pytest

from vocabgraft.evaluation.statistics import (
    Accuracy,
    Difference,
    clustered,
    holm,
    mcnemar,
    paired_change,
    paired_difference,
    paired_p,
)
from vocabgraft.evaluation.verdicts import Paired, compare


def pair(both: int, gained: int, lost: int, neither: int, chance: float = 0.2) -> Paired:
    before = [True] * both + [False] * gained + [True] * lost + [False] * neither
    after = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return Paired("set", before, after, chance)


def said(pair: Paired, **margin: float) -> str:
    (found,) = compare([pair], **margin)
    return found.sentence


def test_the_words_on_chance_and_no_change() -> None:
    assert said(pair(3, 2, 3, 12)) == (
        "Accuracy 5/20 is not distinguishable from chance (20%); no difference from the base model could be shown "
        "(exact McNemar p = 1.00; so many items show 31.3 points)."
    )


def test_the_words_on_a_gain() -> None:
    found = said(pair(20, 15, 1, 10))
    assert found.startswith("Accuracy 35/46 is above chance (20%); better than the base model by 30.4 points (95 % ")
    assert found.endswith("exact McNemar p < 0.001).")


def test_the_words_on_a_loss_below_chance() -> None:
    found = said(pair(0, 0, 12, 28))
    assert found.startswith("Accuracy 0/40 is below chance (20%); worse than the base model by 30.0 points")


@pytest.mark.parametrize(
    ("counts", "retention", "words"),
    [
        ((2000, 5, 6, 2000), "kept", "; kept (95 % interval"),
        ((2000, 0, 300, 1000), "lost", "; not kept (95 % interval"),
        ((20, 3, 4, 20), "not shown", "; not shown to be kept (95 % interval"),
    ],
)
def test_retention_is_claimed_only_where_the_interval_lies_inside_the_margin(
    counts: tuple[int, int, int, int], retention: str, words: str
) -> None:
    (found,) = compare([pair(*counts)], margin=0.01)
    assert found.retention == retention
    assert words in found.sentence
    assert "margin 1.0 points" in found.sentence


def test_better_in_one_of_many_sets_is_not_said_when_it_may_be_luck() -> None:
    lucky = pair(30, 12, 2, 30)
    assert "better" in said(lucky)
    among = compare([lucky, *[pair(30, 5, 5, 30)] * 9])
    assert all("no difference" in found.sentence for found in among)
    assert among[0].p == pytest.approx(10 * mcnemar(lucky.before, lucky.after))
    assert "Holm over 10 sets" in among[0].sentence


def test_a_sentence_names_the_test_that_was_made() -> None:
    plain = pair(20, 15, 1, 10)
    grouped = Paired("set", plain.before, plain.after, 0.2, [n % 12 for n in range(46)])
    (found,) = compare([grouped])
    assert "exact McNemar, signs flipped by cluster p < 0.001" in found.sentence
    assert found.p > mcnemar(plain.before, plain.after)


def test_holm_adjusts_as_published() -> None:
    # Holm 1979: the smallest times all of them, the next times one less, never decreasing.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_gain_in_one_exam_alone_is_no_proof() -> None:
    before, after = [False] * 60, [True] * 12 + [False] * 48
    exams = [n // 12 for n in range(60)]
    assert mcnemar(before, after) < 0.001
    assert paired_p(before, after, exams) == 1.0


def test_a_gain_in_each_exam_is() -> None:
    before, after = [False] * 60, ([True] * 3 + [False] * 3) * 10
    exams = [n // 6 for n in range(60)]
    assert paired_p(before, after, exams) == pytest.approx(2 / 2**10)


def test_one_item_or_one_exam_shows_nothing() -> None:
    assert paired_difference([False], [True]) == Difference(1.0, -1.0, 1.0)
    assert paired_difference([False] * 9, [True] * 9, ["same"] * 9) == Difference(1.0, -1.0, 1.0)
    assert clustered([True] * 9, ["same"] * 9) == Accuracy(1.0, 9, 0.0, 1.0)
    found = paired_change([2.0], [1.0], [8])
    assert (found.relative, found.low, found.high) == (-0.5, -1.0, 1.0)


def test_items_and_clusters_go_together() -> None:
    with pytest.raises(ValueError, match="3 items and 2 clusters"):
        clustered([True, False, True], ["a", "b"])


def exams(random: np.random.Generator, count: int, items: int, spread: float, p: float) -> tuple[list[bool], list[int]]:
    """Right answers in exams of which some are easier: beta-binomial, with this correlation within an exam."""
    easy = np.full(count, p) if not spread else random.beta(p * (1 / spread - 1), (1 - p) * (1 / spread - 1), count)
    return (random.random((count, items)) < easy[:, None]).ravel().tolist(), np.repeat(range(count), items).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("count", "items", "spread"), [(36, 20, 0.0), (36, 20, 0.05), (13, 60, 0.02)])
def test_clustered_intervals_hold_the_truth_94_to_96_times_in_100(count: int, items: int, spread: float) -> None:
    random, covered, trials = np.random.default_rng(0), 0, 10_000
    for _ in range(trials):
        p = random.uniform(0.2, 0.8)
        found = clustered(*exams(random, count, items, spread, p))
        covered += found.low <= p <= found.high
    assert 0.94 <= covered / trials <= 0.96


def versions(random: np.random.Generator, up: float, down: float, n: int) -> tuple[list[bool], list[bool]]:
    """Two versions of a model: shares of all answers that become right, and wrong."""
    before, draw = random.random(n) < 0.4, random.random(n)
    after = np.where(before, draw >= down / 0.4, draw < up / 0.6)
    return before.tolist(), after.tolist()


@pytest.mark.slow
def test_paired_intervals_hold_the_truth_94_to_96_times_in_100() -> None:
    random, covered, trials = np.random.default_rng(0), 0, 10_000
    for seed in range(trials):
        found = paired_difference(*versions(random, 0.08, 0.05, 400), seed=seed, draws=500)
        covered += found.low <= 0.03 <= found.high
    assert 0.94 <= covered / trials <= 0.96


@pytest.mark.slow
def test_better_or_worse_is_said_of_equals_at_most_55_times_in_1000() -> None:
    random, trials = np.random.default_rng(0), 10_000
    wrong = sum(paired_p(*versions(random, 0.06, 0.06, 300)) <= 0.05 for _ in range(trials))
    assert wrong / trials <= 0.055


@pytest.mark.slow
def test_where_exams_change_together_mcnemar_alone_says_too_much_and_ours_does_not() -> None:
    random, trials, ours, alone = np.random.default_rng(0), 2000, 0, 0
    for _ in range(trials):
        before, after = [], []
        for shift in random.normal(0, 0.05, 36):
            b, a = versions(random, max(0.0, 0.06 + shift / 2), max(0.0, 0.06 - shift / 2), 12)
            before, after = before + b, after + a
        groups = [n // 12 for n in range(36 * 12)]
        ours += paired_p(before, after, groups, draws=1000) <= 0.05
        alone += mcnemar(before, after) <= 0.05
    assert ours / trials <= 0.055 < alone / trials


def test_a_model_that_guesses_is_called_chance_in_95_of_100() -> None:
    random, called = np.random.default_rng(0), 0
    for _ in range(300):
        right = (random.random(435) < 0.2).tolist()
        (found,) = compare([Paired("set", right, right, 0.2)])
        called += found.at_chance and "not distinguishable from chance" in found.sentence
    assert called >= 285


def test_retention_is_claimed_of_what_lost_the_margin_at_most_one_time_in_forty() -> None:
    random, trials = np.random.default_rng(0), 2000
    wrong = 0
    for seed in range(trials):
        found = paired_difference(*versions(random, 0.05, 0.06, 2000), seed=seed, draws=1000)
        wrong += found.low > -0.01
    assert wrong / trials <= 0.035  # 0.025, and three times its own error
