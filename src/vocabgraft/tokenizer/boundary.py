"""Where a text may be cut so that its tokens are the tokens of its parts, put one after the other.

Counting each different part once is then exact and many times faster than encoding a corpus. Which cuts are safe
depends on the tokenizer: on what its pieces spell (SentencePiece style: whole text, spaces as ▁) or on its
pre-tokenizer's pattern (byte-level BPE). What is not known to be safe is not cut: the part is the whole text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import BPE

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# A run of white space goes to the word after it. Safe for GPT-2's pattern: no match holds white space behind a
# non-space, and none looks back; a cut after a line feed would not be (`\s+(?!\S)` looks ahead).
_BEFORE_SPACE = r"\s*\S+|\s+"
# Here a match may take line feeds behind punctuation, and `\s*[\r\n]+` ends at the last of a run whatever follows.
_AFTER_LINE = r"[^\S\r\n]*\S+(?:\s*[\r\n])?|\s*[\r\n]|\s+"
_PATTERNS = {GPT2: _BEFORE_SPACE, LLAMA3: _AFTER_LINE, QWEN2: _AFTER_LINE}

_CROSSING = re.compile(r"[^ ] |\n[^\n]|[^\n]\n")  # what a piece spells if a cut at a space or line could split it
_MOST_CROSSING = 64
_STEADY = {"NFC", "NFD", "NFKC", "NFKD"}  # no form composes a space or line feed with what follows it


@dataclass(frozen=True)
class WordRule:
    """How to cut: a pattern (syntax of Rust's regex) whose matches tile any text, or None for no cut.

    `reason` says in words why, for people who wonder about a slow count. `odd`: in a line with none of these, the
    pattern does no more than cut before each space, which is faster done without it; lines and runs of line feeds are
    words' limits then. Empty: no such short cut.
    """

    pattern: str | None
    reason: str
    odd: tuple[str, ...] = ()

    @property
    def cuts(self) -> bool:
        """Whether texts are cut into words."""
        return self.pattern is not None


def word_rule(tokenizer: Tokenizer) -> WordRule:
    """The finest cut known to be exact for this tokenizer; whole texts when none is."""
    problem = _problem(tokenizer)
    if problem:
        return WordRule(None, f"texts are not cut: {problem}")
    pre = _settings(tokenizer.pre_tokenizer)
    if _spaces_are_pieces(_settings(tokenizer.normalizer), pre):
        return _by_pieces(p.replace("▁", " ") for p in tokenizer.get_vocab(with_added_tokens=True))
    pattern = _PATTERNS.get(_split_pattern(pre) or "")
    if pattern is None:
        return WordRule(None, "texts are not cut: the pre-tokenizer's pattern is not one of GPT-2, Llama 3, Qwen 2")
    if any(_CROSSING.search(t.content) for t in tokenizer.get_added_tokens_decoder().values()):
        return WordRule(None, "texts are not cut: an added token holds white space")
    return WordRule(pattern, "cut at white space as the pre-tokenizer's pattern allows")


def line_rule() -> WordRule:
    """Whole lines: for pieces that may span words. Not for exact token counts of every tokenizer."""
    return WordRule(r"[^\n]+|\n+", "cut at line feeds only, because pieces may span words")


def merges_over_all(tokenizer: Tokenizer) -> bool:
    """Whether merges run over whole texts, Gemma's way, and what they do depends on letters alone."""
    parts = (_settings(tokenizer.normalizer), _settings(tokenizer.pre_tokenizer))
    return _problem(tokenizer) is None and _spaces_are_pieces(*parts)


def _settings(part: Any) -> dict[str, Any] | None:
    """What `tokenizer.json` would say of a normalizer or pre-tokenizer; the whole file takes a second for Gemma."""
    found: dict[str, Any] | None = None if part is None else json.loads(part.__getstate__())
    return found


def _problem(tokenizer: Tokenizer) -> str | None:
    model = tokenizer.model
    if not isinstance(model, BPE):
        return f"the model is {type(model).__name__}, not BPE"
    if any(t.lstrip or t.rstrip or t.single_word for t in tokenizer.get_added_tokens_decoder().values()):
        return "an added token looks at its neighbours (lstrip, rstrip or single_word)"
    if model.fuse_unk and not model.byte_fallback:
        return "unknown letters are fused into one token across words"
    if model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix:
        return "merges depend on chance or on the word's edge"
    return None


def _spaces_are_pieces(normalizer: dict[str, Any] | None, pre: dict[str, Any] | None) -> bool:
    """Gemma's way: spaces become ▁ and merges run over the whole text, which then holds no space to split at."""
    replaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    at_space = pre is not None and pre["type"] == "Split" and pre["pattern"] == {"String": " "}
    return normalizer == replaces and (pre is None or at_space)


def _by_pieces(spelt: Iterable[str]) -> WordRule:
    crossing = sorted({p for p in spelt if _CROSSING.search(p)}, key=lambda p: (-len(p), p))
    if len(crossing) > _MOST_CROSSING or _overlap(crossing):
        return WordRule(r"[^\n]+|\n+", f"cut at line feeds only: {len(crossing):,} pieces span words")
    if any("\n" in p for p in crossing):
        return WordRule(None, f"texts are not cut: piece {next(p for p in crossing if chr(10) in p)!r} spans lines")
    # A ▁ that stands in the text is a space to the pieces, so no cut falls between the two.
    kept = "".join(re.escape(p) + "|" for p in crossing)
    reason = "cut before runs of spaces and around line feeds: no piece spans these"
    if crossing:
        reason += f"; but never inside {', '.join(map(repr, crossing[:3]))}"
    return WordRule(rf"[ ▁]*(?:{kept}[^ ▁\n])+|[ ▁]+|\n+", reason, odd=("  ", "▁", *crossing))


def _overlap(pieces: list[str]) -> bool:
    """Whether the end of one piece can be the beginning of another: then a scan could miss the second."""
    return any(a.endswith(b[:n]) for a in pieces for b in pieces for n in range(1, min(len(a), len(b))))


def _split_pattern(pre: dict[str, Any] | None) -> str | None:
    """The regular expression of a byte-level pre-tokenizer; Digits beside it splits more and changes no cut."""
    if pre is None:
        return None
    parts = pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
    parts = [p for p in parts if p["type"] != "Digits"]
    if not parts or parts[-1]["type"] != "ByteLevel" or parts[-1]["add_prefix_space"]:
        return None
    if len(parts) == 1:
        return GPT2 if parts[0]["use_regex"] else None
    first = parts[0]
    isolated = len(parts) == 2 and first["type"] == "Split" and first["behavior"] == "Isolated" and not first["invert"]
    if not isolated or parts[-1]["use_regex"]:
        return None
    found: str | None = first["pattern"].get("Regex")
    return found
