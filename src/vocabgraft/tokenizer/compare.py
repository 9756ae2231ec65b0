"""Compare a base tokenizer with any expansion of it, ours or not: what moved, what is new, what can be reached.

Needs `tokenizer.json` alone and works for SentencePiece-style pieces (▁혈압, <0xEB>), byte-level BPE (Ġhello) and
WordPiece (##ing). Positions are bytes of the text, because a token may be a part of a letter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate

import numpy as np
from tokenizers import Tokenizer, decoders

from vocabgraft.corpus.script import SCRIPTS, script_pattern
from vocabgraft.tokenizer.measure import encode
from vocabgraft.tokenizer.spelling import is_byte_level
from vocabgraft.tokenizer.vocabulary import SPACE

PLACEHOLDER = re.compile(r"[<\[]\|?\w*(unused|reserved|extra_id)\w*?\d+\|?[>\]]", re.IGNORECASE)
"""Pieces that stand for nothing and may be replaced: <unused7>, <|reserved_special_token_3|>, [unused12]."""
_JAPANESE = ("Han", "Hiragana", "Katakana")
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def vocabulary_of(tokenizer: Tokenizer) -> dict[str, int]:
    """Piece -> id, added tokens included."""
    found: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    return found


def new_pieces(base: Tokenizer, expanded: Tokenizer) -> dict[str, int]:
    """Pieces the base has not, with their ids, in id order."""
    known = vocabulary_of(base)
    fresh = ((p, i) for p, i in vocabulary_of(expanded).items() if p not in known)
    return dict(sorted(fresh, key=lambda row: row[1]))


def moved_ids(base: Tokenizer, expanded: Tokenizer) -> list[str]:
    """Base pieces with another id, or gone without having been a placeholder; in id order."""
    now = vocabulary_of(expanded)
    rows = sorted(vocabulary_of(base).items(), key=lambda row: row[1])
    return [p for p, i in rows if now.get(p, -1) != i and not (p not in now and PLACEHOLDER.fullmatch(p))]


def lost_specials(base: Tokenizer, expanded: Tokenizer) -> list[str]:
    """Special tokens of the base (placeholders apart) that are elsewhere, gone, or no longer special."""
    kept = {t.content: i for i, t in expanded.get_added_tokens_decoder().items() if t.special}
    return [
        t.content
        for i, t in sorted(base.get_added_tokens_decoder().items())
        if t.special and not PLACEHOLDER.fullmatch(t.content) and kept.get(t.content) != i
    ]


def frame(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """Tokens the tokenizer puts before and after a text on its own (BOS, EOS)."""
    whole = tokenizer.encode("a", add_special_tokens=True).tokens
    plain = tokenizer.encode("a", add_special_tokens=False).tokens
    for at in range(len(whole) - len(plain) + 1):
        if whole[at : at + len(plain)] == plain:
            return whole[:at], whole[at + len(plain) :]
    return whole, []


def text_of(tokenizer: Tokenizer, pieces: Iterable[str]) -> dict[str, str]:
    """The text each piece stands for; pieces that are parts of a letter are left out."""
    if not is_byte_level(tokenizer):
        return {p: p.replace(SPACE, " ") for p in pieces if not _BYTE.fullmatch(p)}
    decoder = decoders.ByteLevel()
    texts = {p: decoder.decode([p]) for p in pieces}
    return {p: t for p, t in texts.items() if "\ufffd" not in t}


def unreachable_pieces(tokenizer: Tokenizer, pieces: Collection[str]) -> list[str]:
    """Pieces that their own text does not give, neither alone nor at the start of a line.

    The second try is for tokenizers that put a space before every text: there 'llo' exists only inside a word.
    """
    texts = text_of(tokenizer, pieces)
    alone = tokenizer.encode_batch(list(texts.values()), add_special_tokens=False)
    left = [p for p, e in zip(texts, alone, strict=True) if e.tokens != [p]]
    start = tokenizer.encode("\n", add_special_tokens=False).tokens
    after = tokenizer.encode_batch(["\n" + texts[p] for p in left], add_special_tokens=False)
    return [p for p, e in zip(left, after, strict=True) if e.tokens != [*start, p]]


def boundaries(tokenizer: Tokenizer, text: str) -> list[int]:
    """Where each token of a text ends, in bytes of the normalised text."""
    tokens = tokenizer.encode(text, add_special_tokens=False).tokens
    added = {t.content for t in tokenizer.get_added_tokens_decoder().values()}
    level = is_byte_level(tokenizer)
    return list(accumulate(_bytes_of(token, token in added, level) for token in tokens))


def token_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """Bytes of the normalised text that each token stands for, by id (int64; 0 for ids without a token)."""
    vocabulary = vocabulary_of(tokenizer)
    added = {t.content for t in tokenizer.get_added_tokens_decoder().values()}
    level = is_byte_level(tokenizer)
    found = np.zeros(max(vocabulary.values(), default=-1) + 1, np.int64)
    for token, i in vocabulary.items():
        found[i] = _bytes_of(token, token in added, level)
    return found


def script_of(pieces: Iterable[str]) -> str | None:
    """The script whose letters the most pieces hold, named as in `corpus.script`; None when there are no letters.

    Kana beside kanji is Japanese, which is written in three scripts at once.
    """
    texts = list(pieces)
    letters = "".join(sorted({c for text in texts for c in text if c.isalpha()}))
    kinds = {name: set(script_pattern(name).findall(letters)) for name in SCRIPTS if name != "Japanese"}
    held = Counter(name for text in texts for name, kind in kinds.items() if not kind.isdisjoint(text))
    if not held:
        return None
    name, _ = held.most_common(1)[0]
    kana = held["Hiragana"] + held["Katakana"]
    return "Japanese" if name in _JAPANESE and kana * 20 >= len(texts) else name


def _bytes_of(token: str, added: bool, level: bool) -> int:
    if level and not added:
        return len(token)
    if _BYTE.fullmatch(token):
        return 1
    return len(token.removeprefix("##").replace(SPACE, " ").encode())


def not_coarser(base: Tokenizer, expanded: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Texts in which some expanded token is not a run of base tokens."""
    return [t for t in texts if not set(boundaries(expanded, t)) <= set(boundaries(base, t))]


def changed_texts(base: Tokenizer, expanded: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Texts whose ids differ."""
    return [t for t, a, b in zip(texts, encode(base, texts), encode(expanded, texts), strict=True) if a != b]
