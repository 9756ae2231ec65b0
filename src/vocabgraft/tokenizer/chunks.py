"""Tokens of many different words from few chunks: words are cut further where no piece joins two letters.

A merge gives a piece, so between two letters that stand side by side in no piece there is never one, and BPE on both
sides goes its own way. For Gemma 3 and Korean, 2.4 million different words are made of 146,000 different chunks.
Only for tokenizers whose merges run over the whole text (Gemma's way): a pre-tokenizer's pattern may look across.
"""

from __future__ import annotations

from itertools import chain
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from vocabgraft.tokenizer.boundary import merges_over_all

Ints: TypeAlias = npt.NDArray[np.int64]

_BITS = 21  # of a code point: three fit into one key
_PACKED = 3


class Chunks:
    """Encodes words chunk by chunk and remembers every chunk it has met."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """For a tokenizer that `can_chunk`."""
        self._tokenizer = tokenizer
        pieces = [piece for piece in tokenizer.get_vocab(with_added_tokens=True) if piece]
        codes = _codes("".join(pieces))
        inside = np.ones(len(codes), bool)
        inside[np.fromiter(map(len, pieces), np.int64, len(pieces)).cumsum()[:-1]] = False
        self._pairs = np.unique((codes[:-1] << _BITS | codes[1:])[inside[1:]])
        self._places: dict[int | str, int] = {}  # chunk -> its place in the next two
        self._starts = np.zeros(0, np.int64)
        self._sizes = np.zeros(0, np.int64)
        self._ids = np.zeros(0, np.int64)  # of all chunks, one after the other

    def encode(self, words: list[str]) -> tuple[Ints, Ints]:
        """(ids of all words one after the other, tokens of each word), as encoding each word would give."""
        text = "".join(words)
        codes = _codes(text)
        letters = np.fromiter(map(len, words), np.int64, len(words))
        lengths = np.zeros(len(words), np.int64)
        if not len(codes):
            return codes, lengths
        firsts = (letters.cumsum() - letters)[letters > 0]
        opens = np.ones(len(codes), bool)
        opens[1:] = ~self._joined(codes)
        opens[firsts] = True
        starts = np.flatnonzero(opens)
        places = self._places_of(text, codes, starts)
        sizes = self._sizes[places]
        ends = sizes.cumsum()
        within = np.arange(int(ends[-1])) - np.repeat(ends - sizes, sizes)
        ids = self._ids[np.repeat(self._starts[places], sizes) + within]
        lengths[letters > 0] = np.add.reduceat(sizes, np.searchsorted(starts, firsts))
        return ids, lengths

    def _joined(self, codes: Ints) -> npt.NDArray[np.bool_]:
        """Whether some piece has these neighbours inside, for each letter and the next."""
        keys = codes[:-1] << _BITS | codes[1:]
        at = np.searchsorted(self._pairs, keys)
        at[at == len(self._pairs)] = 0
        found: npt.NDArray[np.bool_] = self._pairs[at] == keys if len(self._pairs) else np.zeros(len(keys), bool)
        return found

    def _places_of(self, text: str, codes: Ints, starts: Ints) -> Ints:
        sizes = np.diff(starts, append=len(codes))
        short = sizes <= _PACKED
        padded = np.append(codes + 1, np.zeros(_PACKED, np.int64))  # 0 is no letter
        keys = np.zeros(len(starts), np.int64)
        for n in range(_PACKED):
            keys = keys << _BITS | np.where(n < sizes, padded[starts + n], 0)
        places = np.zeros(len(starts), np.int64)
        different, first, where = np.unique(keys[short], return_index=True, return_inverse=True)
        packed, begins = different.tolist(), starts[short][first]
        ends = begins + sizes[short][first]
        long = [text[a : a + n] for a, n in zip(starts[~short].tolist(), sizes[~short].tolist(), strict=True)]
        new: dict[int | str, str] = {
            key: text[a:b]
            for key, a, b in zip(packed, begins.tolist(), ends.tolist(), strict=True)
            if key not in self._places
        }
        new |= {chunk: chunk for chunk in long if chunk not in self._places}
        self._learn(new)
        places[short] = np.fromiter((self._places[k] for k in packed), np.int64, len(packed))[where]
        places[~short] = np.fromiter((self._places[chunk] for chunk in long), np.int64, len(long))
        return places

    def _learn(self, new: dict[int | str, str]) -> None:
        rows = [e.ids for e in self._tokenizer.encode_batch_fast(list(new.values()), add_special_tokens=False)]
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        self._places |= {key: len(self._sizes) + n for n, key in enumerate(new)}
        self._starts = np.append(self._starts, len(self._ids) + sizes.cumsum() - sizes)
        self._sizes = np.append(self._sizes, sizes)
        self._ids = np.append(self._ids, np.fromiter(chain.from_iterable(rows), np.int64, int(sizes.sum())))


def _codes(text: str) -> Ints:
    """Code points, with spaces as ▁."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    codes[codes == ord(" ")] = ord("▁")
    return codes


def can_chunk(tokenizer: Tokenizer) -> bool:
    """Whether merges run over the whole text and every letter has tokens of its own (all 256 bytes have a piece)."""
    bytes_ = (f"<0x{byte:02X}>" for byte in range(256))
    return merges_over_all(tokenizer) and all(tokenizer.token_to_id(piece) is not None for piece in bytes_)
