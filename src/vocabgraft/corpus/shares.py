"""How much of a stream each source gets, and whose turn it is at every position: exact shares, no chance in them.

Sizes are flattened by a temperature as multilingual corpora are (share ~ size^(1/T), arXiv 1907.05019, section 4), and
a small source is not read more often than `max_epochs` times while a larger one has text left: up to four epochs are
nearly as good as new text (arXiv 2305.16264).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from vocabgraft.errors import DataError

_ROUNDING = 1e-9


def tempered(
    sizes: Mapping[str, int],
    temperature: float,
    *,
    budget: float = 0.0,
    max_epochs: float = 1.0,
    given: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Share of each source, all together 1: those given are as they are, the rest ~ size^(1/T).

    budget: how much will be read, in the unit of `sizes`; then no source but those given is read more than `max_epochs`
    times, unless all are: they are read equally often then. Sources of size 0 get nothing. Raises DataError when a
    source is unknown, when given shares exceed 1, or when they are all there is and are less than 1.
    """
    given = dict(given or {})
    _check(sizes, given)
    left = 1 - sum(given.values())
    weights = {name: size ** (1 / temperature) for name, size in sizes.items() if size and name not in given}
    most = {name: max_epochs * sizes[name] / budget if budget else 1.0 for name in weights}
    shares = dict.fromkeys(sizes, 0.0) | given
    if sum(most.values()) <= left:
        weights, most = {name: float(sizes[name]) for name in weights}, dict.fromkeys(weights, 1.0)
    while weights and left > _ROUNDING:
        total = sum(weights.values())
        full = [name for name, weight in weights.items() if left * weight / total > most[name]]
        for name in full or list(weights):
            shares[name] = most[name] if full else left * weights[name] / total
        if not full:
            break
        left -= sum(most[name] for name in full)
        weights = {name: weight for name, weight in weights.items() if name not in full}
    return shares


def _check(sizes: Mapping[str, int], given: Mapping[str, float]) -> None:
    total = sum(given.values())
    problems = [f"no source {name!r}" for name in given if name not in sizes]
    problems += [f"{name!r} has no text" for name, share in given.items() if share and sizes.get(name) == 0]
    if total > 1 + _ROUNDING:
        problems.append(f"{total:.3f} in all, more than 1")
    if total < 1 - _ROUNDING and not any(size for name, size in sizes.items() if name not in given):
        problems.append(f"{total:.3f} in all, and no other source has text for the rest")
    if problems:
        raise DataError(f"shares of sources: {'; '.join(problems)}. There are {', '.join(map(repr, sorted(sizes)))}")


def turn(shares: Sequence[float], position: int) -> tuple[int, int]:
    """Whose turn it is at a position (from 0), and how many turns that source had before.

    After n positions each source had n * share turns, rounded down or up: the quota method of Balinski and Young
    (American Mathematical Monthly 82, 1975) takes, of those who may not yet have their due, the one due first.
    """
    return _turns(tuple(shares)).at(position)


@cache
def _turns(shares: tuple[float, ...]) -> _Turns:
    return _Turns(shares)


class _Turns:
    """The turns of some shares from the first on, worked out as far as was asked."""

    def __init__(self, shares: tuple[float, ...]) -> None:
        self.shares = [(which, share) for which, share in enumerate(shares) if share > 0]
        self.had = [0] * len(shares)
        self.turns: list[tuple[int, int]] = []

    def at(self, position: int) -> tuple[int, int]:
        while len(self.turns) <= position:
            self._take()
        return self.turns[position]

    def _take(self) -> None:
        after, had = len(self.turns) + 1, self.had
        _, which = min(((had[i] + 1) / share, i) for i, share in self.shares if had[i] < share * after - _ROUNDING)
        self.turns.append((which, had[which]))
        had[which] += 1
