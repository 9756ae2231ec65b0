"""Intervals and tests for small test sets: what may be said, and no more.

Items of one exam are not independent, so intervals take clusters (Miller 2024, arXiv 2411.00640, section 2). Where
no clusters are given, each item is one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEVEL = 0.975  # two-sided 95 %


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers with its 95 % interval."""

    accuracy: float
    n: int
    low: float
    high: float


def wilson(right: int, n: int) -> Accuracy:
    """Wilson score interval (JASA 1927): honest for small n and near 0 or 1."""
    return _wilson(right / n if n else 0.0, n, n, _normal(_LEVEL))


def _wilson(p: float, n: int, effective: float, z: float) -> Accuracy:
    if effective == 0:
        return Accuracy(p, n, 0.0, 1.0)
    centre = (p + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z * math.sqrt(p * (1 - p) / effective + z**2 / (4 * effective**2)) / (1 + z**2 / effective)
    return Accuracy(p, n, max(0.0, centre - half), min(1.0, centre + half))


def clustered(right: Sequence[bool], clusters: Sequence[Hashable]) -> Accuracy:
    """Wilson's interval of as many items as the clusters are worth (Korn and Graubard, Survey Methodology 1998).

    right, clusters: one of each an item. The items are divided by the design effect, how many times the variance
    between clusters is that of as many independent items (it may be less than once), and Student's t of the clusters
    replaces the normal quantile. One cluster shows nothing of its own variance: the interval is then everything.
    """
    x, groups = np.asarray(right, float), _numbered(clusters, len(right))
    n, count = len(x), int(groups.max(initial=-1)) + 1
    if count == n:
        return wilson(int(x.sum()), n)
    if count < 2:
        return Accuracy(float(x.mean()) if n else 0.0, n, 0.0, 1.0)
    p = float(x.mean())
    between = count / (count - 1) * float((np.bincount(groups, x - p) ** 2).sum()) / n**2
    alone = p * (1 - p) / n
    effect = between / alone if alone and between else 1.0
    return _wilson(p, n, n / effect, _student(_LEVEL, count - 1))


@dataclass(frozen=True)
class Mean:
    """Mean of a few runs with its 95 % interval; without bounds for a single run."""

    mean: float
    low: float | None
    high: float | None


def mean_of_runs(values: Sequence[float]) -> Mean:
    """Student's t interval (Biometrika 1908), for a few runs such as seeds."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Mean(mean, None, None)
    half = _student(_LEVEL, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Mean(mean, mean - half, mean + half)


def binomial_two_sided(right: int, n: int, p: float) -> float:
    """Exact two-sided binomial test: probability of a count as unlikely as `right` or more; 0 < p < 1."""
    from scipy.stats import binomtest

    return float(binomtest(right, n, p).pvalue) if n else 1.0


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact McNemar test on the same items: p-value of the change in accuracy."""
    gained = sum(b and not a for a, b in zip(before, after, strict=True))
    lost = sum(a and not b for a, b in zip(before, after, strict=True))
    return binomial_two_sided(gained, gained + lost, 0.5)


def paired_p(
    before: Sequence[bool], after: Sequence[bool], clusters: Sequence[Hashable] | None = None, *, draws: int = 10_000
) -> float:
    """p-value of a change in accuracy: McNemar's, and no less than what the clusters allow.

    Where whole exams get better or worse together, McNemar's test takes every item for evidence of its own. So the net
    gain is also held against those that the same clusters give with random signs (2**clusters of them, or `draws`).
    """
    alone = mcnemar(before, after)
    if clusters is None:
        return alone
    gains = np.bincount(_numbered(clusters, len(before)), np.subtract(after, before, dtype=float))
    gains = gains[gains != 0]
    if 2 ** len(gains) <= draws:
        signs = 1 - 2 * (np.arange(2 ** len(gains))[:, None] >> np.arange(len(gains)) & 1)
        return max(alone, float(np.mean(abs(signs @ gains) >= abs(gains.sum()))))
    signs = 1 - 2 * np.random.default_rng(0).integers(0, 2, (draws, len(gains)))
    extreme = int((abs(signs @ gains) >= abs(gains.sum())).sum())
    return max(alone, (extreme + 1) / (draws + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of tests made together, adjusted (Holm, Scandinavian Journal of Statistics 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def detectable(n: int, flips: float, *, power: float = 0.8) -> float:
    """Smallest paired difference in accuracy that n items show with this power if a share `flips` of answers flips."""
    return min(1.0, (_normal(_LEVEL) + _normal(power)) * math.sqrt(flips / n)) if n else 1.0


@dataclass(frozen=True)
class Difference:
    """Accuracy after less accuracy before, with a paired bootstrap interval; shares of 1."""

    difference: float
    low: float
    high: float


def paired_difference(
    before: Sequence[bool],
    after: Sequence[bool],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    draws: int = 2000,
) -> Difference:
    """Difference in accuracy on the same items: resample items, or whole clusters.

    Never narrower than what the Wilson intervals of gained and lost items allow together (Zou and Donner, Statistics
    in Medicine 2008): where few answers changed, or none, resampling sees no more than it was given.
    """
    gains = np.subtract(after, before, dtype=float)
    groups = _numbered(clusters, len(gains)) if clusters is not None else np.arange(len(gains))
    sizes = np.bincount(groups).astype(float)
    low, high = _bootstrap(np.bincount(groups, gains).astype(float), sizes, seed, draws) or (-1.0, 1.0)
    up, down = (wilson(int((gains == sign).sum()), len(gains)) for sign in (1, -1))
    d = up.accuracy - down.accuracy
    below = math.hypot(up.accuracy - up.low, down.high - down.accuracy)
    above = math.hypot(up.high - up.accuracy, down.accuracy - down.low)
    return Difference(d, max(-1.0, min(low, d - below)), min(1.0, max(high, d + above)))


@dataclass(frozen=True)
class Change:
    """Relative change of bits per byte with a paired bootstrap interval; negative is better."""

    relative: float
    low: float
    high: float


def paired_change(
    before: Sequence[float], after: Sequence[float], sizes: Sequence[int], *, seed: int = 0, draws: int = 2000
) -> Change:
    """Change of bits per byte on the same windows: resample windows, take the ratio of sums.

    A single window shows nothing of how windows differ: the interval is then from -1 to 1.
    """
    a, b = np.asarray(before, float), np.asarray(after, float)
    if len(a) != len(b) or len(a) != len(sizes):
        raise ValueError("windows of the two models do not pair up")
    low, high = _bootstrap(b, a, seed, draws) or (0.0, 2.0)
    return Change(float(b.sum() / a.sum() - 1), low - 1, high - 1)


def _bootstrap(
    above: NDArray[np.float64], below: NDArray[np.float64], seed: int, draws: int
) -> tuple[float, float] | None:
    """95 % percentile interval of a ratio of sums over the same units, expanded for few units; None for fewer than two.

    A resample of n units varies by (n - 1) / n of what it should; taking percentiles further out makes up for that
    and for Student's tails (Hesterberg, "What teachers should know about the bootstrap", The American Statistician
    2015, section 5.3).
    """
    n = len(above)
    if n < 2:
        return None
    # Units that are alike, as most items are, need not be told apart: how many of each kind is multinomial.
    kinds, counts = np.unique(np.stack([above, below], 1), axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, draws)
    samples = drawn @ kinds[:, 0] / (drawn @ kinds[:, 1])
    tail = _tail(-math.sqrt(n / (n - 1)) * _student(_LEVEL, n - 1))
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def _numbered(clusters: Sequence[Hashable], n: int) -> NDArray[np.int64]:
    if len(clusters) != n:
        raise ValueError(f"{n} items and {len(clusters)} clusters")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(c, len(numbers)) for c in clusters], np.int64)


# scipy.stats takes a second to load.
def _normal(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


def _tail(z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(z))


def _student(share: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))
