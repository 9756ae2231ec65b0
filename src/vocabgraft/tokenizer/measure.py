"""Measure and prove a pair of tokenizers: fertility, unchanged ids, agreement of the two files, round trip."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.vocabulary import Vocabulary


@dataclass(frozen=True)
class Fertility:
    """How many tokens a text costs."""

    words: int
    tokens: int
    bytes: int

    @property
    def tokens_per_word(self) -> float:
        """Tokens per whitespace-separated word (Korean: eojeol)."""
        return self.tokens / max(self.words, 1)


def load_tokenizer(folder: Path) -> Tokenizer:
    """`tokenizer.json` of a folder, without transformers. Adds no special tokens on its own.

    Shared by all callers while the file stays as it is (Gemma's takes over a second to parse): do not change it.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise TokenizerError(f"{path}: missing; a Hugging Face folder with tokenizer.json is needed")
    stamp = path.stat()
    return _parsed(str(path), stamp.st_ino, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=4)
def _parsed(path: str, inode: int, mtime_ns: int, size: int) -> Tokenizer:
    try:
        return Tokenizer.from_file(path)
    except Exception as e:  # tokenizers raises bare Exception
        raise TokenizerError(f"{path}: not a tokenizer ({e})") from e


def together(texts: Iterable[str], letters: int = 1_000_000, most: int = 20_000) -> Iterator[list[str]]:
    """Runs of texts that are read at once: of about so many letters, and at most so many texts."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= letters or len(batch) >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, no BOS."""
    return [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def fertility(tokenizer: Tokenizer, texts: Sequence[str]) -> Fertility:
    """Words, tokens and bytes of texts."""
    tokens = sum(len(ids) for ids in encode(tokenizer, texts))
    return Fertility(sum(len(t.split()) for t in texts), tokens, sum(len(t.encode()) for t in texts))


def changed_ids(before: Tokenizer, after: Tokenizer, texts: Sequence[str]) -> int:
    """Number of ids that differ between two tokenizers over texts (0 means identical)."""
    changed = 0
    for a, b in zip(encode(before, texts), encode(after, texts), strict=True):
        if a != b:
            changed += sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))
    return changed


def disagreements(folder: Path, texts: Sequence[str]) -> list[str]:
    """Texts that `tokenizer.model` (sentencepiece) and `tokenizer.json` (tokenizers) encode differently.

    Names of special tokens inside a text are taken out first: only Hugging Face reads `<unk>` in a text as the
    token, which is a difference of the two libraries and not of the two files.
    """
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    tokenizer = load_tokenizer(folder)
    special = [t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special]
    names = re.compile("|".join(re.escape(name) for name in special) or r"(?!)")
    plain = [names.sub("", t) for t in texts]
    return [t for t, ids in zip(plain, encode(tokenizer, plain), strict=True) if model.encode(t) != ids]


def not_restored(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Texts that do not come back from encode -> decode."""
    return [
        t
        for t, ids in zip(texts, encode(tokenizer, texts), strict=True)
        if tokenizer.decode(ids, skip_special_tokens=False) != t
    ]


def moved_tokens(base: Tokenizer, expanded: Tokenizer, new_ids: Sequence[int]) -> list[str]:
    """Base tokens of tokenizer.json that have another id, or none, although their id is not a new one."""
    new, after = set(new_ids), expanded.get_vocab(with_added_tokens=True)
    before = base.get_vocab(with_added_tokens=True)
    return sorted(token for token, i in before.items() if i not in new and after.get(token) != i)


def moved_pieces(base: Vocabulary, expanded: Vocabulary, new_ids: Sequence[int]) -> list[str]:
    """Base pieces whose id, score or type changed although their id is not a new one."""
    new = set(new_ids)
    return [
        p
        for i, p in enumerate(base.pieces)
        if i not in new
        and (expanded.pieces[i], expanded.scores[i], expanded.types[i]) != (p, base.scores[i], base.types[i])
    ]
