"""What may be said of two models on the same items, in fixed words.

'better' and 'worse' only where the adjusted test allows, 'kept' only where the interval lies inside the margin, and
'not distinguishable from chance' wherever that is so.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from vocabgraft.evaluation.statistics import (
    Accuracy,
    Difference,
    binomial_two_sided,
    clustered,
    detectable,
    holm,
    paired_difference,
    paired_p,
    wilson,
)

_USUAL_FLIPS = 0.1  # share of answers that change between two versions of a model, where fewer were seen


@dataclass(frozen=True)
class Paired:
    """Answers of two models to the same items of one set; chance: what guessing gets, a share."""

    name: str
    before: Sequence[bool]
    after: Sequence[bool]
    chance: float
    clusters: Sequence[Hashable] | None = None
    """What each item was set with, such as exam and year."""


@dataclass(frozen=True)
class Comparison:
    """One set, compared: shares of 1; `p` is adjusted for all sets compared together."""

    name: str
    before: Accuracy
    after: Accuracy
    difference: Difference
    p: float
    tests: int
    detectable: float
    """The smallest difference that so many items show in four of five cases."""
    chance: float
    at_chance: bool
    retention: str
    """'kept', 'lost' or 'not shown'; '' where no margin was given."""
    sentence: str


def compare(
    pairs: Sequence[Paired], *, margin: float | None = None, beside: str = "the base model"
) -> list[Comparison]:
    """Every set's figures and sentence, p-values adjusted over all of them by Holm's method.

    margin: how much accuracy may be lost and still count as kept (a share); None where no retention is claimed.
    beside: what `before` are the answers of, in words.
    """
    adjusted = holm([paired_p(p.before, p.after, p.clusters) for p in pairs])
    return [_comparison(pair, p, len(pairs), margin, beside) for pair, p in zip(pairs, adjusted, strict=True)]


def _comparison(pair: Paired, p: float, tests: int, margin: float | None, beside: str) -> Comparison:
    n, right = len(pair.after), sum(pair.after)
    flips = sum(a != b for a, b in zip(pair.before, pair.after, strict=True)) / n
    after = interval(pair.after, pair.clusters)
    difference = paired_difference(pair.before, pair.after, pair.clusters)
    # An interval over clusters may reach chance where a test of independent items does not.
    at_chance = binomial_two_sided(right, n, pair.chance) > 0.05 or after.low <= pair.chance <= after.high
    retention = "" if margin is None else _retention(difference, margin)
    smallest = detectable(n, max(flips, _USUAL_FLIPS))
    change = _change(difference, _test(p, tests, pair.clusters), p, smallest, beside)
    sentence = f"{_level(right, n, pair.chance, at_chance)}; {change}"
    if margin is not None:
        sentence += f"; {_kept(retention, difference, margin)}"
    before = interval(pair.before, pair.clusters)
    return Comparison(
        pair.name, before, after, difference, p, tests, smallest, pair.chance, at_chance, retention, f"{sentence}."
    )


def interval(right: Sequence[bool], clusters: Sequence[Hashable] | None) -> Accuracy:
    """Accuracy with the interval that fits: of clusters where there are any."""
    return wilson(sum(right), len(right)) if clusters is None else clustered(right, clusters)


def _level(right: int, n: int, chance: float, at_chance: bool) -> str:
    if at_chance:
        return f"Accuracy {right}/{n} is not distinguishable from chance ({chance:.0%})"
    return f"Accuracy {right}/{n} is {'above' if right / n > chance else 'below'} chance ({chance:.0%})"


def _test(p: float, tests: int, clusters: Sequence[Hashable] | None) -> str:
    """The p-value and where it is from."""
    name = "exact McNemar" if clusters is None else "exact McNemar, signs flipped by cluster"
    found = "p < 0.001" if p < 0.001 else f"p = {p:.2f}" if p > 0.05 else f"p = {p:.3f}"
    return f"{name} {found}" + (f", Holm over {tests} sets" if tests > 1 else "")


def _change(difference: Difference, test: str, p: float, smallest: float, beside: str) -> str:
    if p > 0.05:
        return f"no difference from {beside} could be shown ({test}; so many items show {100 * smallest:.1f} points)"
    word = "better" if difference.difference > 0 else "worse"
    points = f"{100 * abs(difference.difference):.1f} points"
    return f"{word} than {beside} by {points} ({_bounds(difference)}; {test})"


def _retention(difference: Difference, margin: float) -> str:
    if difference.low > -margin:
        return "kept"
    return "lost" if difference.high < -margin else "not shown"


def _kept(retention: str, difference: Difference, margin: float) -> str:
    says = {"kept": "kept", "lost": "not kept", "not shown": "not shown to be kept"}
    return f"{says[retention]} ({_bounds(difference)}; margin {100 * margin:.1f} points)"


def _bounds(difference: Difference) -> str:
    return f"95 % interval {100 * difference.low:+.1f} to {100 * difference.high:+.1f} points"
