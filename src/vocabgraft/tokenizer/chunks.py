"""Tokens of many different words from few chunks: words are cut further where no piece joins two letters.

A merge gives a piece, so between two letters that stand side by side in no piece there is never one, and BPE on both
sides goes its own way. For Gemma 3 and Korean, 2.4 million different words are made of 146,000 different chunks.
"""

from __future__ import annotations

from itertools import chain
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
from tokenizers import Tokenizer, pre_tokenizers

from vocabgraft.tokenizer.boundary import merges_over_all, word_rule
from vocabgraft.tokenizer.joins import ByteJoins, LetterJoins, codes_of
from vocabgraft.tokenizer.spelling import bytes_of, is_byte_level

Ints: TypeAlias = npt.NDArray[np.int64]

_BITS = 21  # of a code point: three fit into one key
_PACKED = 3


class Chunks:
    """Encodes words chunk by chunk and remembers every chunk it has met."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """For a tokenizer that `can_chunk`."""
        self._tokenizer = tokenizer
        self._spaces_are_pieces = merges_over_all(tokenizer)
        self._joins = _joins(tokenizer)
        self._places: dict[int | str, int] = {}  # chunk -> its place in the next two
        self._starts = np.zeros(0, np.int64)
        self._sizes = np.zeros(0, np.int64)
        self._ids = np.zeros(0, np.int64)  # of all chunks, one after the other

    def encode(self, words: pl.Series) -> tuple[Ints, Ints]:
        """(ids of all words one after the other, tokens of each word), as encoding each word would give."""
        text = words.str.join("").item() if len(words) else ""
        letters = words.str.len_chars().to_numpy().astype(np.int64)
        lengths = np.zeros(len(words), np.int64)
        if not text:
            return np.zeros(0, np.int64), lengths
        codes = codes_of(text)
        if self._spaces_are_pieces:
            codes[codes == ord(" ")] = ord("▁")
        firsts = (letters.cumsum() - letters)[letters > 0]
        opens = np.ones(len(codes), bool)
        opens[1:] = self._joins.cut(codes)
        opens[firsts] = True
        starts = np.flatnonzero(opens)
        places = self._places_of(text, codes, starts)
        sizes = self._sizes[places]
        ends = sizes.cumsum()
        within = np.arange(int(ends[-1])) - np.repeat(ends - sizes, sizes)
        ids = self._ids[np.repeat(self._starts[places], sizes) + within]
        lengths[letters > 0] = np.add.reduceat(sizes, np.searchsorted(starts, firsts))
        return ids, lengths

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


def _joins(tokenizer: Tokenizer) -> LetterJoins | ByteJoins:
    if merges_over_all(tokenizer):
        return LetterJoins(tokenizer.get_vocab(with_added_tokens=True))
    added = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    return ByteJoins(tokenizer.get_vocab(with_added_tokens=False), added, composes=tokenizer.normalizer is not None)


def can_chunk(tokenizer: Tokenizer) -> bool:
    """Whether cuts between letters are known to be safe: Gemma's way with a piece for each byte, or byte-level BPE by
    one of the known patterns, whose normalizer leaves letters as they are."""
    if merges_over_all(tokenizer):
        # Without a piece, unknown letters may be put together into one token.
        return all(tokenizer.token_to_id(f"<0x{byte:02X}>") is not None for byte in range(256))
    if not is_byte_level(tokenizer) or not word_rule(tokenizer).cuts:
        return False
    plain = tokenizer.normalizer is None or "NFC(" in repr(tokenizer.normalizer)
    added = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    return plain and all(map(str.isascii, added)) and _merges_make_all(tokenizer)


def _merges_make_all(tokenizer: Tokenizer) -> bool:
    """Whether a model that looks words up before it merges (Llama 3) would find the same by merging alone."""
    if not tokenizer.model.ignore_merges:
        return True
    merging = Tokenizer.from_str(tokenizer.to_str())
    merging.normalizer, merging.pre_tokenizer = None, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    merging.model.ignore_merges = False
    texts = [text for p in tokenizer.get_vocab(with_added_tokens=False) if (text := _text_of(p)) is not None]
    return all(len(e.ids) == 1 for e in merging.encode_batch_fast(texts, add_special_tokens=False))


def _text_of(piece: str) -> str | None:
    """What a byte-level piece spells; None when it begins or ends inside a letter."""
    try:
        return bytes_of(piece).decode()
    except (KeyError, UnicodeDecodeError):
        return None
