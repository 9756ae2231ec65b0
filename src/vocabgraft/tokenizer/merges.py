"""Learn byte-pair merges over sequences of ids, each with a count (Sennrich et al., arXiv 1508.07909, section 3.2).

The same merges in the same order as the trainer of `tokenizers` (tests hold them side by side), with what that one
lacks: it takes counts instead of repeated text, starts from any alphabet of ids, and asks before each merge whether
it is allowed. All sequences lie in one array of linked positions; a merge touches only the places where its pair
stands, in a few array operations.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_NONE = -1


@dataclass(frozen=True)
class Merge:
    """`left` and `right` become `new`; the pair stood at `count` places of the corpus when it was chosen."""

    left: int
    right: int
    new: int
    count: int


def learn_merges(
    ids: Ints,
    lengths: Ints,
    counts: Ints,
    *,
    first_new: int,
    size: int,
    min_count: int,
    allowed: Callable[[int, int, int], bool] = lambda left, right, new: True,
) -> list[Merge]:
    """Learn up to `size` merges, most frequent pair first; equal counts go to the smaller ids.

    ids: the sequences one after the other; lengths, counts: of each sequence. New ids are first_new,
    first_new + 1, …, in order of learning, so a smaller `size` gives a prefix. `allowed(left, right, new)` is asked
    once for a pair, when its turn comes, with the id it would get; a refused pair never merges.
    """
    state = _Sequences(ids, lengths, counts, first_new + size)
    state.count_all(min_count)
    learnt: list[Merge] = []
    while len(learnt) < size:
        found = state.most_frequent()
        if found is None:
            break
        left, right, count = found
        new = first_new + len(learnt)
        if not allowed(left, right, new):
            state.forget(left, right)
            continue
        learnt.append(Merge(left, right, new, count))
        state.merge(left, right, new, min_count)
    return learnt


def replay_merges(ids: Ints, lengths: Ints, counts: Ints, merges: Sequence[Merge]) -> Ints:
    """Tokens that each merge saves when they are applied in order: (merges,) int64, a compression curve's slope."""
    base = max([int(ids.max(initial=0)), *(m.new for m in merges)]) + 1
    state = _Sequences(ids, lengths, counts, base)
    state.count_all(1)
    saved = np.zeros(len(merges), np.int64)
    for n, m in enumerate(merges):
        if m.left * base + m.right in state.places:
            saved[n] = state.merge(m.left, m.right, m.new, 1)
    return saved


class _Sequences:
    """Linked positions. The arrays have one place more than there are ids, so that index -1 means 'none'."""

    def __init__(self, ids: Ints, lengths: Ints, counts: Ints, base: int) -> None:
        lengths, counts = lengths[lengths > 0], counts[lengths > 0]
        self.base = base  # ids are below it: a pair is the one number left * base + right
        self.id = np.append(ids, _NONE)
        n = len(ids)
        self.next = np.append(np.arange(1, n + 1), _NONE)
        self.previous = np.append(np.arange(-1, n - 1), _NONE)
        ends = np.cumsum(lengths)
        if n:
            self.next[ends - 1] = _NONE
            self.previous[ends - lengths] = _NONE
        self.weight = np.append(np.repeat(counts, lengths), 0)
        self.counts: dict[int, int] = {}
        self.places: dict[int, Ints] = {}
        self.queue: list[tuple[int, int]] = []

    def count_all(self, min_count: int) -> None:
        """Pairs of the beginning, with their places."""
        (places,) = np.nonzero(self.next[:-1] != _NONE)
        self._note(places, min_count)
        heapq.heapify(self.queue)

    def most_frequent(self) -> tuple[int, int, int] | None:
        """(left, right, count) of the pair whose turn it is. Entries of the queue may be out of date: look again."""
        while self.queue:
            count, pair = heapq.heappop(self.queue)
            now = self.counts.get(pair, 0)
            if now == -count:
                return *divmod(pair, self.base), now
            if now:
                heapq.heappush(self.queue, (-now, pair))
        return None

    def forget(self, left: int, right: int) -> None:
        pair = left * self.base + right
        self.counts.pop(pair, None)
        self.places.pop(pair, None)

    def merge(self, left: int, right: int, new: int, min_count: int) -> int:
        """Put `new` wherever left and right stand side by side; returns how many tokens that saves."""
        at = self._standing(left, right)
        saved = int(self.weight[at].sum())
        gone = self.next[at]
        before, after = self.previous[at], self.next[gone]
        # A link between two merged pairs touches both: each link is counted once, by its left end.
        self._subtract(np.unique(np.concatenate([before[before != _NONE], gone[after != _NONE]])), min_count)
        self.forget(left, right)
        self.id[at] = new
        self.id[gone] = _NONE
        self.next[at] = after
        self.previous[after[after != _NONE]] = at[after != _NONE]
        before = self.previous[at]
        self._note(np.unique(np.concatenate([before[before != _NONE], at[after != _NONE]])), min_count, push=True)
        return saved

    def _standing(self, left: int, right: int) -> Ints:
        at = self.places[left * self.base + right]
        # self.next[-1] is -1 and so is self.id[-1]: a place without a successor never matches.
        at = at[(self.id[at] == left) & (self.id[self.next[at]] == right)]
        if left != right or not len(at):
            return at  # type: ignore[no-any-return]
        # aaa: the pairs overlap; every second one of a run of neighbours is taken, from the left.
        starts = np.append(True, self.previous[at[1:]] != at[:-1])
        index = np.arange(len(at))
        first = np.maximum.accumulate(np.where(starts, index, 0))
        return at[(index - first) % 2 == 0]  # type: ignore[no-any-return]

    def _pairs(self, places: Ints) -> Ints:
        pairs: Ints = self.id[places] * self.base + self.id[self.next[places]]
        return pairs

    def _subtract(self, places: Ints, min_count: int) -> None:
        pairs, inverse = np.unique(self._pairs(places), return_inverse=True)
        lost = np.bincount(inverse, self.weight[places], len(pairs)).astype(np.int64)
        counts = self.counts
        for pair, n in zip(pairs.tolist(), lost.tolist(), strict=True):
            if pair in counts:
                counts[pair] -= n
                if counts[pair] < min_count:
                    del counts[pair], self.places[pair]

    def _note(self, places: Ints, min_count: int, push: bool = False) -> None:
        """Count the pairs at these places. A pair gets all its places at once, so a rare one can be dropped."""
        pairs = self._pairs(places)
        order = np.argsort(pairs, kind="stable")
        pairs, places = pairs[order], places[order]
        starts = np.flatnonzero(np.append(True, pairs[1:] != pairs[:-1])) if len(pairs) else np.zeros(0, np.int64)
        totals = np.add.reduceat(self.weight[places], starts) if len(starts) else starts
        ends = np.append(starts[1:], len(pairs))
        for i in np.flatnonzero(totals >= min_count).tolist():
            pair, total = int(pairs[starts[i]]), int(totals[i])
            self.counts[pair] = total
            self.places[pair] = places[starts[i] : ends[i]]
            if push:
                heapq.heappush(self.queue, (-total, pair))
            else:
                self.queue.append((-total, pair))
