"""Which ids of a base new pieces may take, and why the others may not. Needs no weights.

Two kinds are free: slots, i.e. placeholders nobody was told about (`<unused99>`, `<|reserved_special_token_7|>`),
and padded rows, i.e. rows of the matrices beyond the last id of the tokenizer. Not free is what any file of the base
names: MedGemma 1.5 marks its thinking with `<unused94>` and `<unused95>`, and only its chat template says so.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.vocabulary import read_model, slots

# Sentinels such as <extra_id_0> look alike but were trained on, so they are no slots.
_PLACEHOLDER = re.compile(r"<\|?\w*(?:unused|reserved)\w*?\d+\|?>", re.IGNORECASE)
_ID_KEY = re.compile(r"token_?(id|index|indices)s?$|suppress_tokens$|(words|decoder)_ids$")
# Files that list every token, used or not, or none.
_LISTS = {"tokenizer.json", "vocab.json", "added_tokens.json", "sha256.json", "expansion.json"}
_ROWS_PER_BLOCK = 64


@dataclass(frozen=True)
class Room:
    """Free ids, slots first; `kept` says why a slot or padded row is not free; `next_id` follows all ids in use.

    `rows` is the height of the matrices as config.json gives it, None without one.
    """

    free: tuple[int, ...]
    kept: dict[int, str]
    next_id: int
    rows: int | None

    def take(self, count: int) -> tuple[int, ...]:
        """The first `count` free ids. Raises TokenizerError that says how many are free and why not more."""
        if count > len(self.free):
            raise TokenizerError(
                f"{count:,} pieces for {self.describe()}; lower tokenizer.pieces, or let the matrices grow with "
                "tokenizer.place = 'append'"
            )
        return self.free[:count]

    def append(self, count: int) -> tuple[tuple[int, ...], int | None]:
        """`count` ids after all ids in use, and the rows the matrices must then have (None: as they are).

        Rows are a multiple of 64, as GPUs and vLLM like them. Raises TokenizerError when an id there is spoken for.
        """
        ids = tuple(range(self.next_id, self.next_id + count))
        for i in ids:
            if i in self.kept:
                raise TokenizerError(f"id {i} cannot be appended: {self.kept[i]}; use tokenizer.place = 'slots'")
        end = self.next_id + count
        if self.rows is not None and end <= self.rows:
            return ids, None
        return ids, -(-end // _ROWS_PER_BLOCK) * _ROWS_PER_BLOCK

    def describe(self) -> str:
        """One line: '10 free slots and 0 free padded rows (kept: 489 below reserved_slots = 489)'."""
        padded = sum(i >= self.next_id for i in self.free)
        free = f"{len(self.free) - padded:,} free slots and {padded:,} free padded rows"
        reasons = "; ".join(f"{n:,} {why}" for why, n in Counter(self.kept.values()).items())
        return f"{free} (kept: {reasons})" if reasons else free


def free_ids(base: Path, reserved_slots: int = 99) -> Room:
    """The ids of a base folder that new pieces may take: slots in id order, then padded rows in id order.

    `<unusedN>` with N below `reserved_slots` are kept; Gemma's makers reserved those. Reads the tokenizer and the
    configuration files only. Raises TokenizerError for a folder without a readable tokenizer.
    """
    tokenizer = load_tokenizer(base)
    tokens = _tokens(base, tokenizer)
    next_id, rows = max(tokens.values()) + 1, _rows(base)
    named = _named(base, tokenizer, tokens, max(next_id, rows or 0))
    kept = {i: why for i, why in named.items() if i >= next_id}
    padded = range(next_id, rows or 0)
    if kept:
        # Past an id that only the configuration knows nothing can stand: the pieces in between would be missing.
        first = min(kept)
        kept = {i: f"not before {kept[first]}" for i in padded if i > first} | kept
    placeholders = _placeholders(base, tokens)
    kept |= {i: f"below reserved_slots = {reserved_slots}" for i, n in placeholders.items() if n < reserved_slots}
    kept |= {i: named[i] for i in placeholders if i in named}
    free = tuple(i for i in (*sorted(placeholders), *padded) if i not in kept)
    return Room(free, dict(sorted(kept.items())), next_id, rows)


def _tokens(base: Path, tokenizer: Tokenizer) -> dict[str, int]:
    """Token -> id over all files that may define one."""
    found: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    config = read_json(base / "tokenizer_config.json")
    for i, entry in (config.get("added_tokens_decoder") or {}).items():
        found.setdefault(entry["content"] if isinstance(entry, dict) else str(entry), int(i))
    for token, i in read_json(base / "added_tokens.json").items():
        found.setdefault(token, int(i))
    return found


def _placeholders(base: Path, tokens: dict[str, int]) -> dict[int, float]:
    """Id -> its number N, which `reserved_slots` is compared with; byte-level placeholders are above any."""
    if (base / "tokenizer.model").is_file():
        vocabulary = read_model(base / "tokenizer.model")
        return {i: int(vocabulary.pieces[i][len("<unused") : -1]) for i in slots(vocabulary, 0)}
    return {i: inf for token, i in tokens.items() if _PLACEHOLDER.fullmatch(token)}


def _rows(base: Path) -> int | None:
    config = read_json(base / "config.json")
    text = config.get("text_config") or {}
    rows = text.get("vocab_size") or config.get("vocab_size")
    return int(rows) if rows else None


def _named(base: Path, tokenizer: Tokenizer, tokens: dict[str, int], end: int) -> dict[int, str]:
    """Id -> who names it: a template, a configuration, the post-processor. `end` follows all ids and rows."""
    found: dict[int, str] = {}
    for path in sorted([*base.glob("*.jinja"), *base.glob("*/*.jinja")]):
        _name_tokens(path.read_text("utf-8"), tokens, f"named by {path.name}", found)
    _name_tokens(_post_processor(tokenizer), tokens, "named by the post-processor of tokenizer.json", found)
    for path in sorted(base.glob("*.json")):
        if path.name in _LISTS or path.name.endswith(".index.json"):
            continue
        content = read_json(path)
        content.pop("added_tokens_decoder", None)
        for text in _texts(content):
            _name_tokens(text, tokens, f"named by {path.name}", found)
        for key, i in token_ids(content):
            found.setdefault(i, f"{key} of {path.name}")
        for first in _offsets(content):
            # Gemma 3n: ids from here on are images and sounds to it. Also the id at `end`: nothing can be appended.
            found |= dict.fromkeys(range(first, end + 1), f"vocab_offset of {path.name}")
    return found


def _name_tokens(text: str, tokens: dict[str, int], why: str, found: dict[int, str]) -> None:
    for match in _PLACEHOLDER.finditer(text):
        if match[0] in tokens:
            found.setdefault(tokens[match[0]], why)


def _post_processor(tokenizer: Tokenizer) -> str:
    processor = tokenizer.post_processor
    return "" if processor is None else processor.__getstate__().decode("utf-8")


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield key
            yield from _texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value)


def token_ids(content: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """(key, id) for every number under a key of a configuration that holds token ids."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from token_ids(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from token_ids(value, key)
    elif isinstance(content, int) and not isinstance(content, bool) and content >= 0 and _ID_KEY.search(key):
        yield key, content


def _offsets(content: Any) -> Iterator[int]:
    if isinstance(content, dict):
        for name, value in content.items():
            if name == "vocab_offset" and isinstance(value, int):
                yield value
            yield from _offsets(value)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty when there is no such file or it holds something else."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as e:
        raise TokenizerError(f"{path}: not JSON ({e}); download it again") from e
    return content if isinstance(content, dict) else {}
