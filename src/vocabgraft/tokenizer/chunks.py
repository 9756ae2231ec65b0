"""Tokens of many different words from few chunks: words are cut further where no piece joins two letters.

A merge gives a piece, so between two letters that stand side by side in no piece there is never one, and BPE on both
sides goes its own way. For Gemma 3 and Korean, 2.4 million different words are made of 146,000 different chunks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
from tokenizers import Tokenizer, pre_tokenizers

from vocabgraft.tokenizer.boundary import merges_over_all, word_rule
from vocabgraft.tokenizer.joins import ByteJoins, LetterJoins, codes_of, hashed, plain_letters
from vocabgraft.tokenizer.spelling import LETTER_OF_BYTE, bytes_of, is_byte_level

Ints: TypeAlias = npt.NDArray[np.int64]

_BITS = 21  # of a code point: three fit into one key
_PACKED = 3
_MET_BITS = 21  # of a table for chunks: 32 MB


class Chunks:
    """Encodes words chunk by chunk and remembers every chunk it has met."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """For a tokenizer that `can_chunk`."""
        self._spaces_are_pieces = merges_over_all(tokenizer)
        spelling = _letter_spelling if self._spaces_are_pieces else _byte_spelling
        self._encode = _encoder(tokenizer, spelling(tokenizer))
        self._joins = _joins(tokenizer)
        self._places: dict[int | str, int] = {}  # chunk -> its place in the next two
        self._starts = np.zeros(0, np.int64)
        self._sizes = np.zeros(0, np.int64)
        self._ids = np.zeros(0, np.int64)  # of all chunks, one after the other
        self._met = _Met()

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
        padded = np.append(codes + 1, np.zeros(_PACKED, np.int64))  # 0 is no letter
        keys = padded[starts]
        for n in range(1, _PACKED):
            keys <<= _BITS
            keys |= np.where(n < sizes, padded[starts + n], 0)
        keys[sizes > _PACKED] = 0
        places = self._met.find(keys)
        missed = np.flatnonzero(places < 0)
        places[missed] = self._places_of_rare(text, keys[missed], starts[missed], sizes[missed])
        return places

    def _places_of_rare(self, text: str, keys: Ints, starts: Ints, sizes: Ints) -> Ints:
        """Places of chunks that are not in `_met`: because they are new, too long for a key, or pushed out."""
        packed = keys > 0
        different, first, where = np.unique(keys[packed], return_index=True, return_inverse=True)
        begins, lengths = starts[packed][first], sizes[packed][first]
        short: dict[int | str, str] = dict(zip(different.tolist(), _parts(text, begins, lengths), strict=True))
        long = _parts(text, starts[~packed], sizes[~packed])
        both = short | {chunk: chunk for chunk in long}
        self._learn({key: chunk for key, chunk in both.items() if key not in self._places})
        found = np.fromiter((self._places[k] for k in short), np.int64, len(short))
        self._met.put(different, found)
        places = np.zeros(len(keys), np.int64)
        places[packed] = found[where]
        places[~packed] = np.fromiter((self._places[chunk] for chunk in long), np.int64, len(long))
        return places

    def _learn(self, new: dict[int | str, str]) -> None:
        rows = self._encode(list(new.values()))
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        self._places |= {key: len(self._sizes) + n for n, key in enumerate(new)}
        self._starts = np.append(self._starts, len(self._ids) + sizes.cumsum() - sizes)
        self._sizes = np.append(self._sizes, sizes)
        self._ids = np.append(self._ids, np.fromiter(chain.from_iterable(rows), np.int64, int(sizes.sum())))


def _encoder(tokenizer: Tokenizer, spell: Callable[[str], str | None]) -> Callable[[list[str]], list[list[int]]]:
    """Encodes short texts without what `tokenizers` does before it merges, which takes longer than merging: `spell`
    says how the model is given a text, None where the whole tokenizer must look at it."""
    model = tokenizer.model

    def encode(texts: list[str]) -> list[list[int]]:
        spelt = [spell(text) for text in texts]
        rows = [[] if text is None else [token.id for token in model.tokenize(text)] for text in spelt]
        careful = [n for n, text in enumerate(spelt) if text is None]
        whole = tokenizer.encode_batch_fast([texts[n] for n in careful], add_special_tokens=False)
        for n, encoding in zip(careful, whole, strict=True):
            rows[n] = encoding.ids
        return rows

    return encode


def _letter_spelling(tokenizer: Tokenizer) -> Callable[[str], str | None]:
    """With ▁ for a space; a text that may hold an added token is left to the tokenizer."""
    beginnings = {t.content[:2].replace(" ", "▁") for t in tokenizer.get_added_tokens_decoder().values()}
    may_be_added = re.compile("|".join(map(re.escape, sorted(beginnings))) or r"(?!)")

    def spell(text: str) -> str | None:
        spelt = text.replace(" ", "▁")
        return None if may_be_added.search(spelt) else spelt

    return spell


def _byte_spelling(tokenizer: Tokenizer) -> Callable[[str], str | None]:
    """In the letters of bytes, where a text is one word to every known pattern and no normalizer touches it: letters
    without case, perhaps behind one space. Added tokens are ASCII (`can_chunk`), so none is in there but a space."""
    if any(t.content.isspace() for t in tokenizer.get_added_tokens_decoder().values()):
        return lambda text: None
    one_word, letters = re.compile(f" ?[{plain_letters()}]+"), dict(LETTER_OF_BYTE)
    return lambda text: text.encode().decode("latin-1").translate(letters) if one_word.fullmatch(text) else None


class _Met:
    """Places of chunks by key, without a search: each slot holds the last key that was put there."""

    def __init__(self) -> None:
        self._keys = np.zeros(1 << _MET_BITS, np.int64)
        self._places = np.zeros(1 << _MET_BITS, np.int64)

    def find(self, keys: Ints) -> Ints:
        """The place of each key, -1 where it is not there; key 0 never is."""
        slots = hashed(keys, _MET_BITS)
        return np.where((self._keys[slots] == keys) & (keys > 0), self._places[slots], -1)

    def put(self, keys: Ints, places: Ints) -> None:
        slots = hashed(keys, _MET_BITS)
        self._keys[slots], self._places[slots] = keys, places


def _parts(text: str, starts: Ints, sizes: Ints) -> list[str]:
    return [text[a : a + n] for a, n in zip(starts.tolist(), sizes.tolist(), strict=True)]


def _joins(tokenizer: Tokenizer) -> LetterJoins | ByteJoins:
    if merges_over_all(tokenizer):
        return LetterJoins(p.replace(" ", "▁") for p in tokenizer.get_vocab(with_added_tokens=True))
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
