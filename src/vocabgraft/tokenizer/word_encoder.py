"""The fastest exact way to encode many different words: by chunks, by gigatoken where it is installed, or plainly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
from tokenizers import Tokenizer

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.boundary import merges_over_all
from vocabgraft.tokenizer.chunks import Chunks, can_chunk

Ints: TypeAlias = npt.NDArray[np.int64]
WordEncoder: TypeAlias = Callable[[pl.Series], tuple[Ints, Ints]]
"""Words -> (ids of all words one after the other, tokens of each word)."""

_TRIAL = 20_000  # words of the first batch that gigatoken must encode as `tokenizers` does …
_SAMPLE = 50  # … and afterwards one in so many


def word_encoder(tokenizer: Tokenizer) -> WordEncoder:
    """An encoder that gives what `tokenizer` gives for each word."""

    def plain(words: pl.Series) -> tuple[Ints, Ints]:
        return _flat([e.ids for e in tokenizer.encode_batch_fast(words.to_list(), add_special_tokens=False)])

    ours = Chunks(tokenizer).encode if can_chunk(tokenizer) else plain
    fast = None if merges_over_all(tokenizer) else _gigatoken(tokenizer)  # slower than chunks where these fit best
    return ours if fast is None else _Checked(fast, ours, plain)


class _Checked:
    """An encoder of other hands: taken if it agrees on the first words, watched from then on."""

    def __init__(self, fast: WordEncoder, ours: WordEncoder, plain: WordEncoder) -> None:
        self._fast, self._ours, self._plain = fast, ours, plain
        self._taken: bool | None = None

    def __call__(self, words: pl.Series) -> tuple[Ints, Ints]:
        if self._taken is None:
            self._taken = self._agrees(words.head(_TRIAL))
        if not self._taken:
            return self._ours(words)
        if not self._agrees(words.gather_every(_SAMPLE)):
            raise TokenizerError("gigatoken and tokenizers encode a word differently; pip uninstall gigatoken")
        return self._fast(words)

    def _agrees(self, words: pl.Series) -> bool:
        return all(map(np.array_equal, self._fast(words), self._plain(words)))


def _gigatoken(tokenizer: Tokenizer) -> WordEncoder | None:
    """gigatoken (https://github.com/marcelroed/gigatoken) of this tokenizer; None when it is not there or will not."""
    try:
        import awkward
        import gigatoken

        peer = gigatoken.Tokenizer(tokenizer)
    except (ImportError, ValueError, RuntimeError, TypeError):
        return None

    def encode(words: pl.Series) -> tuple[Ints, Ints]:
        rows: Any = peer.encode_batch(words.to_list())
        ids, sizes = awkward.to_numpy(awkward.flatten(rows)), awkward.to_numpy(awkward.num(rows))
        return ids.astype(np.int64), sizes.astype(np.int64)

    return encode


def _flat(rows: list[list[int]]) -> tuple[Ints, Ints]:
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum())), lengths
