"""Pack token sequences into rows of one length and mix two streams: batches are a pure function of (seed, step).

A row holds pieces of documents one after the other; positions restart at each piece, which is how the attention
mask is told to keep them apart:

    tokens     BOS a b c BOS d e
    positions   0  1 2 3  0  1 2
    targets     a  b c -  d  e -      ("-" is -100: nothing to predict)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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


def joined(first: Rows, second: Rows) -> Rows:
    """Both sets of rows as one stream."""
    return Rows(
        np.concatenate([first.tokens, second.tokens]),
        np.concatenate([first.positions, second.positions]),
        np.concatenate([first.targets, second.targets]),
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
class Mixture:
    """Two packed streams in an exact share, shuffled anew each epoch."""

    target: Rows
    replay: Rows
    replay_share: float
    seed: int
    rows_per_step: int

    def batch(self, step: int) -> Rows:
        """The rows of one optimiser step, the same for the same (seed, step)."""
        chosen = [self._row(g) for g in range(step * self.rows_per_step, (step + 1) * self.rows_per_step)]
        return Rows(
            np.stack([rows.tokens[i] for rows, i in chosen]),
            np.stack([rows.positions[i] for rows, i in chosen]),
            np.stack([rows.targets[i] for rows, i in chosen]),
        )

    def _row(self, g: int) -> tuple[Rows, int]:
        """Row number g of the endless mixed stream; after n rows, floor(n * share) of them are replay."""
        replay_before, replay_after = int(g * self.replay_share), int((g + 1) * self.replay_share)
        if replay_after > replay_before:
            return self.replay, _shuffled(replay_before, len(self.replay), self.seed, stream=1)
        return self.target, _shuffled(g - replay_before, len(self.target), self.seed, stream=0)


def _shuffled(n: int, size: int, seed: int, stream: int) -> int:
    epoch, index = divmod(n, size)
    return int(np.random.default_rng([seed, stream, epoch]).permutation(size)[index])


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
            end = min(start + size, len(raw))
            if end < len(raw):
                space = raw.rfind(b" ", start + size // 2, end)
                end = space if space > 0 else end
                while raw[end] & 0xC0 == 0x80:
                    end -= 1
            if total + (end - start) > limit and total > 0:
                return
            total += end - start
            yield raw[start:end].decode()
            start = end


def tail(text: str, size: int) -> str:
    """At most the last `size` UTF-8 bytes of a text, from a space on where there is one."""
    raw = text.encode()
    if len(raw) <= size:
        return text
    start = len(raw) - size
    space = raw.find(b" ", start)
    kept = raw[space if space > 0 else start :]
    return kept.decode(errors="ignore")  # a character that begins before the cut
