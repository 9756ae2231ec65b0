"""Does a text hold a question of a benchmark? Asked of every training text, before anything trains on it.

Letters and digits alone are compared, in one form (NFKC, case folded): spaces, punctuation, width, composed or
decomposed Hangul make no difference. Nor do Korean particles: their syllables are left out wherever they stand. An item
is known by the runs of letters of its question and of its options, each apart, so that their order makes none either:
13 letters long, as is usual (Brown et al. 2020, arXiv 2005.14165, appendix C), and 6 where scripts write a syllable or
a word in a letter.

A law that an exam quotes is no leak of the exam. So a text holds an item only where much of it stands within a stretch
of about its length: nearly all of it, or half with the words that end the question, which a quotation has not. Half of
a short question is what any text of its matter says ("cross the blood-brain barrier"): so many letters it takes too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from vocabgraft.corpus.letters import NO_RUNS, Codes, Hashes, Letters, Places, dense, letters, runs
from vocabgraft.evaluation.questions import Question

LONG, SHORT = 13, 6  # letters of a run: of alphabets; of Hangul, Han and Kana
CANDIDATE = 0.25  # share of an item's runs below which it is not looked at closely
ASKED = 0.5  # share of its letters that tells it together with the end of the question …
QUESTION = 0.6  # … or of the question's runs alone, where so many letters stand:
LEAST = {LONG: 40, SHORT: 11}  # eight words: the name of an illness and of its two treatments are no leak
COPIED = 0.8  # share of its letters that tells it however short it is
_COMMON = 32  # a run of more items than these tells none of them
_FILTER_BITS = 25
_BLOCK, _OVERLAP = 1 << 20, 1 << 13  # characters of a block, which bounds the memory; longer than any item
_TOGETHER = 1 << 18  # characters of short texts that are looked at together

_BETWEEN: Codes = np.full(1, 0xFFFFFFFF, np.uint32)  # no letter: no run reaches over it


@dataclass(frozen=True)
class Leak:
    """An item that a text holds: its place among the items, the share of its letters that stand there."""

    item: int
    share: float


class LeakIndex:
    """The items of all benchmarks, ready to be looked for. Building takes about a second for 10,000 items."""

    def __init__(self, items: Sequence[Question]) -> None:
        self.items = items
        self._parts = [[letters(text) for text in (q.question, *q.options)] for q in items]
        codes = [[part.codes for part in parts] for parts in self._parts]
        sizes = [SHORT if dense(np.concatenate(c)) else LONG for c in codes]
        self._runs = [
            _Runs([c if s == size else [] for c, s in zip(codes, sizes, strict=True)], size) for size in (SHORT, LONG)
        ]

    @property
    def unknown(self) -> list[int]:
        """Items without a run, so short are their question and options: they cannot be looked for."""
        return [n for n in range(len(self.items)) if not any(len(known.of[n]) for known in self._runs)]

    def find(self, text: str) -> list[Leak]:
        """The items that a text holds, in their order."""
        return next(self.find_each([text]))

    def find_each(self, texts: Iterable[str]) -> Iterator[list[Leak]]:
        """The same for each of many texts, which are looked at together: short ones take a quarter of the time."""
        waiting: list[list[str]] = []
        size = 0
        for text in texts:
            waiting.append([text[n : n + _BLOCK + _OVERLAP] for n in range(0, max(1, len(text)), _BLOCK)])
            size += len(text)
            if size >= _TOGETHER:
                yield from self._in_texts(waiting)
                waiting, size = [], 0
        if waiting:
            yield from self._in_texts(waiting)

    def _in_texts(self, texts: Sequence[Sequence[str]]) -> Iterator[list[Leak]]:
        """texts: the blocks of each."""
        blocks = iter(self._in_blocks([letters(block) for blocks in texts for block in blocks]))
        for count in map(len, texts):
            best: dict[int, float] = {}
            for found in islice(blocks, count):
                best |= {item: max(share, best.get(item, 0.0)) for item, share in found.items()}
            yield [Leak(item, share) for item, share in sorted(best.items())]

    def _in_blocks(self, blocks: Sequence[Letters]) -> list[dict[int, float]]:
        found: list[dict[int, float]] = [{} for _ in blocks]
        for known in self._runs:
            for at, item, start, end, much in known.candidates([block.codes for block in blocks]):
                read = blocks[at]
                # Short options have no runs of their own to be found by: they stand around what was found.
                reach = 8 + sum(len(p.codes) + 2 for p in self._parts[item][1:] if len(p.codes) < known.size)
                start, end = max(0, start - reach), min(end + reach, len(read.kept))
                near = read.whole[read.kept[start] : read.kept[end - 1] + 9], read.codes[start:end]
                share = _share(self._parts[item], *near, known.size, much)
                if share is not None:
                    found[at][item] = max(share, found[at].get(item, 0.0))
        return found


def _share(parts: Sequence[Letters], whole: Codes, codes: Codes, size: int, much: float) -> float | None:
    """Share of an item's letters that stand in a stretch, which holds so much of its runs; None: that tells nothing."""
    asked = _stands(parts[0].whole[-size:], whole.tobytes())
    if not asked and much < ASKED:
        return None
    stretch, its_runs = codes.tobytes(), runs(codes, size)
    held = [_held(part.codes, stretch, its_runs, size) for part in parts]
    lengths = [len(part.codes) for part in parts]
    share = sum(n * each for n, each in zip(lengths, held, strict=True)) / max(1, sum(lengths))
    enough = share * sum(lengths) >= LEAST[size]
    told = asked and enough and (share >= ASKED or held[0] >= QUESTION)
    return share if share >= COPIED or told else None


def _held(part: Codes, stretch: bytes, its_runs: Hashes, size: int) -> float:
    """Share of a question's or an option's runs that stand in a stretch; of a shorter one, whether it does."""
    if len(part) < size:
        return float(_stands(part, stretch))
    return float(np.isin(runs(part, size), its_runs).mean())


def _stands(part: Codes, stretch: bytes) -> bool:
    """Whole code points only: the bytes of one may begin within another."""
    wanted = part.tobytes()
    at = stretch.find(wanted)
    while at > 0 and at % 4:
        at = stretch.find(wanted, at + 1)
    return at >= 0 and bool(wanted)


class _Runs:
    """Runs of one length: which items have each, and a filter that lets few others through."""

    def __init__(self, items: Sequence[Sequence[Codes]], size: int) -> None:
        """items: the letters of the question and options of each."""
        self.size = size
        self.of = _telling([np.unique(np.concatenate([NO_RUNS, *(runs(p, size) for p in i)])) for i in items])
        lengths = np.array([sum(map(len, parts)) + 2 * len(parts) for parts in items], np.int64)
        self._reach = lengths * 5 // 4 + 2 * size
        self._least = np.maximum(1, CANDIDATE * np.array([len(r) for r in self.of]))
        owners = np.repeat(np.arange(len(items)), [len(r) for r in self.of])
        every = np.concatenate([NO_RUNS, *self.of])
        order = np.argsort(every, kind="stable")
        self._known, self._first, self._count = np.unique(every[order], return_index=True, return_counts=True)
        self._owners = owners[order]
        self._filter = np.zeros(1 << (_FILTER_BITS - 3), np.uint8)
        slot = self._known >> np.uint64(64 - _FILTER_BITS)
        np.bitwise_or.at(self._filter, slot >> np.uint64(3), np.uint8(1) << (slot & np.uint64(7)).astype(np.uint8))

    def candidates(self, texts: Sequence[Codes]) -> list[tuple[int, int, int, int, float]]:
        """(text, item, start, end, share of its runs) of stretches that hold most of each item they hold enough of."""
        starts = np.cumsum([0, *(len(t) + 1 for t in texts)])
        places, known = self._known_runs(np.concatenate([part for t in texts for part in (t, _BETWEEN)]))
        counts = self._count[known]
        owner = self._owners[np.repeat(self._first[known], counts) + _counted(counts)]
        run, place = np.repeat(known, counts), np.repeat(places, counts)
        text = np.searchsorted(starts, place, "right") - 1
        pairs, pair = np.unique(text * len(self.of) + owner, return_inverse=True)
        by_pair = np.argsort(pair, kind="stable")
        return list(self._stretches(pairs, pair[by_pair], place[by_pair], run[by_pair], starts))

    def _stretches(
        self, pairs: Places, pair: Places, place: Places, run: Places, starts: Places
    ) -> Iterator[tuple[int, int, int, int, float]]:
        """Those of each pair of a text and an item. pair, place, run: of each run that stands; starts: of texts."""
        items = pairs % max(1, len(self.of))
        apart = int(starts[-1]) + int(self._reach.max(initial=0)) + 1
        at = pair * apart + place
        within = np.searchsorted(at, at + self._reach[items][pair], "right") - np.arange(len(at))
        firsts = np.searchsorted(pair, np.arange(len(pairs) + 1))
        most = np.maximum.reduceat(within, firsts[:-1]) if len(pairs) else within
        for n in np.flatnonzero(most >= self._least[items]).tolist():
            mine, text, item = slice(firsts[n], firsts[n + 1]), *divmod(int(pairs[n]), len(self.of))
            if len(set(run[mine].tolist())) < self._least[item]:
                continue
            for count, start, end in self._densest(place[mine] - starts[text], run[mine], int(self._reach[item])):
                if count >= self._least[item]:
                    yield text, item, start, end + self.size, count / len(self.of[item])

    def _known_runs(self, codes: Codes) -> tuple[Places, Places]:
        """Where a run of any item stands, and which."""
        hashes = runs(codes, self.size)
        if not len(self._known):
            hashes = hashes[:0]
        slot = hashes >> np.uint64(64 - _FILTER_BITS)
        passed = self._filter[slot >> np.uint64(3)] >> (slot & np.uint64(7)).astype(np.uint8) & 1
        places = np.flatnonzero(passed)
        at = np.searchsorted(self._known, hashes[places])
        real = self._known[np.minimum(at, len(self._known) - 1)] == hashes[places]
        return places[real], at[real]

    def _densest(self, places: Places, found: Places, reach: int) -> list[tuple[int, int, int]]:
        """Most different runs within a stretch of one and a quarter times the item: (how many, start, end).

        places: in rising order. A run that stands again within a stretch's length counts once: where it stood first,
        and in a second answer where it stood last, since a question may follow the law that it quotes.
        """
        order = np.lexsort((places, found))
        near = (np.diff(found[order]) == 0) & (np.diff(places[order]) <= reach)
        stretches = set()
        for again in (order[1:][near], order[:-1][near]):
            once = np.delete(places, again)
            counts = np.searchsorted(once, once + reach, "right") - np.arange(len(once))
            best = int(counts.argmax())
            stretches.add((int(counts[best]), int(once[best]), int(once[best + counts[best] - 1])))
        return sorted(stretches)


def _telling(of: Sequence[Hashes]) -> list[Hashes]:
    """The runs of each item without those of many: "which of the following" asks for nothing in particular."""
    known, counts = np.unique(np.concatenate([NO_RUNS, *of]), return_counts=True)
    common = known[counts > _COMMON]
    rare = [each[~np.isin(each, common)] for each in of]
    return [some if len(some) else each for some, each in zip(rare, of, strict=True)]


def _counted(counts: Places) -> Places:
    """0 … n - 1 for each n."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)
