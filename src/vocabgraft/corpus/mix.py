"""Pack token sequences into rows of one length and mix two streams: batches are a pure function of (seed, step).

A row holds pieces of documents one after the other; positions restart at each piece, which is how the attention
mask is told to keep them apart:

    tokens     BOS a b c BOS d e
    positions   0  1 2 3  0  1 2
    targets     a  b c -  d  e -      ("-" is -100: nothing to predict)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from vocabgraft.corpus.shares import turn
from vocabgraft.errors import DataError

NO_TARGET = -100
_SHORTEST = 8  # tokens; a smaller rest of a row is left empty rather than filled with a fragment
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Packed rows; all arrays are (rows, window) int64."""

    tokens: Ints
    positions: Ints
    targets: Ints

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, index: Sequence[int] | Ints) -> Rows:
        """Rows by index."""
        return Rows(self.tokens[index], self.positions[index], self.targets[index])


@dataclass(frozen=True)
class Example:
    """A token sequence and where its loss counts: `learn[i]` says whether token i is to be predicted."""

    tokens: tuple[int, ...]
    learn: tuple[bool, ...]


def joined(*sets: Rows) -> Rows:
    """Several sets of rows as one stream."""
    return Rows(
        np.concatenate([rows.tokens for rows in sets]),
        np.concatenate([rows.positions for rows in sets]),
        np.concatenate([rows.targets for rows in sets]),
    )


def pack_documents(documents: Iterable[Sequence[int]], window: int, bos: int) -> Rows:
    """Cut documents (ids without BOS) so that rows are full; every cut piece starts with BOS again."""
    if window < 2:
        raise DataError(f"a window of {window} has room for BOS only; take 2 or more")
    rows: list[list[tuple[Sequence[int], Sequence[int]]]] = [[]]
    room = window
    for ids in documents:
        start = 0
        while start < len(ids):
            if room < _SHORTEST:
                rows.append([])
                room = window
            piece = [bos, *ids[start : start + room - 1]]
            rows[-1].append((piece, [*piece[1:], NO_TARGET]))
            start += len(piece) - 1
            room -= len(piece)
    return _stack(rows, window)


def pack_examples(examples: Iterable[Example], window: int) -> Rows:
    """Pack examples whole (loss on marked tokens only); one longer than the window is cut at its end."""
    rows: list[list[tuple[Sequence[int], Sequence[int]]]] = [[]]
    room = window
    for example in examples:
        tokens = example.tokens[:window]
        if len(tokens) > room:
            rows.append([])
            room = window
        learn = example.learn[:window]
        targets = [t if m else NO_TARGET for t, m in zip(tokens[1:], learn[1:], strict=True)]
        rows[-1].append((tokens, [*targets, NO_TARGET]))
        room -= len(tokens)
    return _stack(rows, window)


def _stack(rows: list[list[tuple[Sequence[int], Sequence[int]]]], window: int) -> Rows:
    rows = [row for row in rows if row]
    if not rows:
        raise DataError("nothing to train on: the text gave no tokens; check the sources and the held-out share")
    tokens = np.zeros((len(rows), window), np.int64)
    positions = np.tile(np.arange(window), (len(rows), 1))
    targets = np.full((len(rows), window), NO_TARGET, np.int64)
    for r, row in enumerate(rows):
        at = 0
        for ids, goals in row:
            end = at + len(ids)
            tokens[r, at:end] = ids
            targets[r, at:end] = goals
            positions[r, at:end] = np.arange(len(ids))
            at = end
        positions[r, at:] = np.arange(window - at)  # padding is a piece of its own, predicted by nobody
    return Rows(tokens, positions, targets)


@dataclass(frozen=True)
class Part:
    """Rows of one source, which stand together in a stream: how many, and the source's share of what is drawn."""

    name: str
    rows: int
    share: float


@dataclass(frozen=True)
class Mixture:
    """Two packed streams in an exact share, shuffled anew each epoch.

    Where parts are given, the rows of their stream are those of several sources, one after the other; each is drawn in
    its own share and shuffled apart. Every share is exact to one row: the replay share of all rows drawn so far, a
    source's share of those drawn of its side (`shares.turn`).
    """

    target: Rows
    replay: Rows
    replay_share: float
    seed: int
    rows_per_step: int
    target_parts: tuple[Part, ...] = ()
    replay_parts: tuple[Part, ...] = ()

    def batch(self, step: int) -> Rows:
        """The rows of one optimiser step, the same for the same (seed, step)."""
        chosen = [self._row(g) for g in range(step * self.rows_per_step, (step + 1) * self.rows_per_step)]
        return Rows(
            np.stack([rows.tokens[i] for rows, i in chosen]),
            np.stack([rows.positions[i] for rows, i in chosen]),
            np.stack([rows.targets[i] for rows, i in chosen]),
        )

    def drawn(self, steps: int) -> tuple[int, int]:
        """How many rows of target and of replay text so many steps read."""
        rows = steps * self.rows_per_step
        replay = int(rows * self.replay_share)
        return rows - replay, replay

    def _row(self, g: int) -> tuple[Rows, int]:
        """Row number g of the endless mixed stream; after n rows, floor(n * share) of them are replay."""
        replay_before, replay_after = int(g * self.replay_share), int((g + 1) * self.replay_share)
        if replay_after > replay_before:
            return self.replay, self._place(replay_before, len(self.replay), self.replay_parts, stream=1)
        return self.target, self._place(g - replay_before, len(self.target), self.target_parts, stream=0)

    def _place(self, n: int, size: int, parts: tuple[Part, ...], stream: int) -> int:
        """Where row number n of a stream stands among its rows."""
        if not parts:
            return _shuffled(n, size, self.seed, stream)
        which, number = turn([part.share for part in parts], n)
        start, part = sum(p.rows for p in parts[:which]), parts[which]
        # By its name: another source more or less leaves the order of this one as it is.
        own = int.from_bytes(hashlib.sha256(f"{stream}\0{part.name}".encode()).digest()[:6], "big") + 2
        return start + _shuffled(number, part.rows, self.seed, own)


def _shuffled(n: int, size: int, seed: int, stream: int) -> int:
    epoch, index = divmod(n, size)
    return int(_permutation(size, seed, stream, epoch)[index])


@lru_cache(maxsize=32)
def _permutation(size: int, seed: int, stream: int, epoch: int) -> Ints:
    return np.random.default_rng([seed, stream, epoch]).permutation(size)


def windows(texts: Iterable[str], size: int, limit: int) -> Iterator[str]:
    """Cut texts into windows of at most `size` UTF-8 bytes, at a space where possible, up to `limit` bytes in all.

    Windows fixed in bytes give every tokenizer the same context; a window in tokens would favour the one with
    longer tokens.
    """
    if size < 4:
        raise DataError(f"windows of {size} bytes cannot hold every character; take 4 or more")
    total = 0
    for text in texts:
        raw = text.encode()
        start = 0
        while start < len(raw):
            end = _cut(raw, start, start + size)
            if total + (end - start) > limit and total > 0:
                return
            total += end - start
            yield raw[start:end].decode()
            start = end


def parts_of(text: str, size: int) -> Iterator[str]:
    """A text in parts of nearly one length, about `size` UTF-8 bytes, cut at a space where possible.

    A text of up to one and a half sizes is one part.
    """
    raw = text.encode()
    count = max(1, round(len(raw) / size))
    start = 0
    for number in range(1, count + 1):
        end = _cut(raw, start, len(raw) * number // count)
        if end > start:
            yield raw[start:end].decode()
        start = end


def _cut(raw: bytes, start: int, end: int) -> int:
    """Where to cut UTF-8 text at `end` or before: at its end, a space in the second half, or between characters."""
    if end >= len(raw):
        return len(raw)
    space = raw.rfind(b" ", start + (end - start) // 2, end)
    end = space if space > 0 else end
    while raw[end] & 0xC0 == 0x80:
        end -= 1
    return end


def tail(text: str, size: int) -> str:
    """At most the last `size` UTF-8 bytes of a text, from a space on where there is one."""
    raw = text.encode()
    if len(raw) <= size:
        return text
    start = len(raw) - size
    space = raw.find(b" ", start)
    kept = raw[space if space > 0 else start :]
    return kept.decode(errors="ignore")  # a character that begins before the cut
