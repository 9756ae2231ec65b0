"""Intervals and verdicts for small test sets: what may be said, and no more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.959963984540054  # two-sided 95 %
_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # the same, of n runs


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers with its 95 % interval."""

    accuracy: float
    n: int
    low: float
    high: float


def wilson(right: int, n: int) -> Accuracy:
    """Wilson score interval (JASA 1927): honest for small n and near 0 or 1."""
    if n == 0:
        return Accuracy(0.0, 0, 0.0, 1.0)
    p = right / n
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return Accuracy(p, n, max(0.0, centre - half), min(1.0, centre + half))


@dataclass(frozen=True)
class Mean:
    """Mean of a few runs with its 95 % interval; without bounds for a single run."""

    mean: float
    low: float | None
    high: float | None


def mean_of_runs(values: Sequence[float]) -> Mean:
    """Student's t interval (Biometrika 1908): of 2 to 10 runs, such as seeds; more are treated as 10."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Mean(mean, None, None)
    half = _T[min(n, 10)] * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Mean(mean, mean - half, mean + half)


def binomial_two_sided(right: int, n: int, p: float) -> float:
    """Exact two-sided binomial test: probability of a count as unlikely as `right` or more; 0 < p < 1."""
    if n == 0:
        return 1.0
    # In logarithms: comb(n, k) of some thousand questions is no float.
    probabilities = [math.exp(_log_comb(n, k) + k * math.log(p) + (n - k) * math.log1p(-p)) for k in range(n + 1)]
    limit = probabilities[right] * (1 + 1e-7)
    return min(1.0, sum(q for q in probabilities if q <= limit))


def _log_comb(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact McNemar test on the same items: p-value of the change in accuracy."""
    gained = sum(b and not a for a, b in zip(before, after, strict=True))
    lost = sum(a and not b for a, b in zip(before, after, strict=True))
    return binomial_two_sided(gained, gained + lost, 0.5)


def verdict(before: Sequence[bool], after: Sequence[bool], chance: float) -> str:
    """The sentence a report may print about accuracy before and after."""
    right, n = sum(after), len(after)
    level = (
        f"Accuracy {right}/{n} is not distinguishable from chance ({chance:.0%})"
        if binomial_two_sided(right, n, chance) > 0.05
        else f"Accuracy {right}/{n} is {'above' if right / n > chance else 'below'} chance ({chance:.0%})"
    )
    p = mcnemar(before, after)
    if p > 0.05:
        change = f"no difference from the base model could be shown (exact McNemar p = {p:.2f})"
    else:
        found = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        change = f"{'higher' if right > sum(before) else 'lower'} than the base model's (exact McNemar {found})"
    return f"{level}; {change}."


@dataclass(frozen=True)
class Change:
    """Relative change of bits per byte with a paired bootstrap interval; negative is better."""

    relative: float
    low: float
    high: float


def paired_change(
    before: Sequence[float], after: Sequence[float], sizes: Sequence[int], *, seed: int = 0, draws: int = 2000
) -> Change:
    """Change of bits per byte on the same windows: resample windows, take the ratio of sums."""
    a, b = np.asarray(before), np.asarray(after)
    if len(a) != len(b) or len(a) != len(sizes):
        raise ValueError("windows of the two models do not pair up")
    ratio = b.sum() / a.sum() - 1
    index = np.random.default_rng(seed).integers(0, len(a), (draws, len(a)))
    samples = b[index].sum(1) / a[index].sum(1) - 1
    low, high = np.quantile(samples, [0.025, 0.975])
    return Change(float(ratio), float(low), float(high))
