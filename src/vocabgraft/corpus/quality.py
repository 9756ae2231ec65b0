"""Quality rules of FineWeb-2 with the thresholds that its authors publish for each language (`quality.toml`).

The rules are Gopher's (arXiv 2112.11446, appendix A1) and FineWeb's (arXiv 2406.17557, section 3.6) as FineWeb-2 set
them (arXiv 2506.20920, section 4; fineweb-2-pipeline.py): they judge whole documents, before these are cut. Words are
counted as there: Korean by Kiwi, which parts a noun from its particle, others by spaCy's rules. Kiwi reads each
spaced word by itself here and is asked for each only once: faster than whole texts, and not always cut as there
(datatrove's filters say the same of 98 to 99 % of documents: docs/results.md). Rules of lines come before rules of
words, so a text that breaks both is named by its lines.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import regex
from pydantic import BaseModel, ConfigDict

from vocabgraft.errors import DataError

#: The same for every language: FineWeb-2's pipeline, and datatrove's defaults where it names none.
MIN_WORDS, MAX_WORDS = 50, 100_000
MAX_REPEATED_LETTERS = 0.1
MAX_SYMBOLS_PER_WORD = 0.1
MAX_BULLETS, MAX_UNFINISHED = 0.9, 0.3
MIN_STOP_WORDS = 2

_LINES = re.compile(r"\n+")
_SENTENCE_END = regex.compile(r"\p{Sentence_Terminal}$")
# What CCNet counts as punctuation (arXiv 1911.00359); a middle dot and a circled number are words there.
_PUNCTUATION = regex.compile(
    r"[!-/:-@\[-`{-~«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～\p{Cc}\p{Sentence_Terminal}]+"
)
_LONG_NUMBER = re.compile(r"[0-9,]{20,}")
_KEPT_WORDS = 1 << 19


class Thresholds(BaseModel):
    """One preset; shares are from 0 to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    commit: str
    words: str
    """What splits a text into words: 'kiwi', or 'spacy:' and a language of spaCy."""
    repeated_lines: float
    """Most lines that may have come before."""
    top_runs: tuple[tuple[int, float], ...]
    """(words, most letters that the commonest run of so many words may hold)."""
    repeated_runs: tuple[tuple[int, float], ...]
    """(words, most letters in runs of so many words that came before)."""
    language_score: float
    line_ends: float
    """Fewest lines that end a sentence."""
    breaks_per_word: float
    min_word_length: float
    max_word_length: float
    words_with_letters: float
    """Fewest words with a letter."""
    stop_words: tuple[str, ...]
    """At least two different ones must occur."""


@cache
def presets() -> dict[str, Thresholds]:
    """Every preset by the name that `data.quality` takes."""
    text = files("vocabgraft.corpus").joinpath("quality.toml").read_text("utf-8")
    return {name: Thresholds(name=name, **fields) for name, fields in tomllib.loads(text).items()}


class QualityRules:
    """A preset ready to judge texts."""

    def __init__(self, preset: Thresholds) -> None:
        self.preset = preset
        self._split = _splitter(preset.words)

    def reason_to_drop(self, text: str) -> str | None:
        """Say which rule a whole document breaks; None to keep it."""
        return _lines_reason(text, self.preset) or _words_reason(text, self._split(text), self.preset)


def _lines_reason(text: str, preset: Thresholds) -> str | None:
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return "no words"
    every = _LINES.split(text)
    if _repeated(every)[0] > preset.repeated_lines * len(every):
        return "repeated lines"
    if sum(bool(_SENTENCE_END.search(line)) for line in lines) < preset.line_ends * len(lines):
        return "lines without an end"
    if _repeated(lines)[1] > MAX_REPEATED_LETTERS * len(text.replace("\n", "")):
        return "letters in repeated lines"
    return None


def _words_reason(text: str, words: Sequence[str], preset: Thresholds) -> str | None:
    size = len(text)
    if any(len(words) >= n and _top_run(words, n) > share * size for n, share in preset.top_runs):
        return "one run of words too often"
    if any(_repeated_runs(words, n) > share * size for n, share in preset.repeated_runs):
        return "repeated runs of words"
    if not words:
        return "no words"
    if text.count("\n") > preset.breaks_per_word * len(words):
        return "too many line breaks"
    real = [word for word in words if not _PUNCTUATION.fullmatch(word)]
    if not MIN_WORDS <= len(real) <= MAX_WORDS:
        return "too few words" if len(real) < MIN_WORDS else "too many words"
    letters = sum(map(len, real))
    if not preset.min_word_length * len(real) <= letters <= preset.max_word_length * len(real):
        return "words too short" if letters < preset.min_word_length * len(real) else "words too long"
    return _symbols_reason(text, words) or _content_reason(words, preset)


def _symbols_reason(text: str, words: Sequence[str]) -> str | None:
    most = MAX_SYMBOLS_PER_WORD * len(words)
    if text.count("#") > most:
        return "too many hash signs"
    if text.count("...") + text.count("…") > most:
        return "too many ellipses"
    lines = [line.strip() for line in text.splitlines()]
    if sum(line.startswith(("•", "-")) for line in lines) > MAX_BULLETS * len(lines):
        return "too many bullets"
    if sum(line.endswith(("...", "…")) for line in lines) > MAX_UNFINISHED * len(lines):
        return "too many unfinished lines"
    return None


def _content_reason(words: Sequence[str], preset: Thresholds) -> str | None:
    if sum(any(map(str.isalpha, word)) for word in words) < preset.words_with_letters * len(words):
        return "too few words with letters"
    return "too few stop words" if len(set(preset.stop_words).intersection(words)) < MIN_STOP_WORDS else None


def _repeated(parts: Iterable[str]) -> tuple[int, int]:
    """How many parts came before, and their letters."""
    again = [(count - 1, len(part)) for part, count in Counter(parts).items() if count > 1]
    return sum(n for n, _ in again), sum(n * size for n, size in again)


def _top_run(words: Sequence[str], n: int) -> int:
    """Letters, spaces between words included, in the commonest run of n words, overlaps counted."""
    run, count = Counter(zip(*(words[i:] for i in range(n)), strict=False)).most_common(1)[0]
    return (sum(map(len, run)) + n - 1) * count


def _repeated_runs(words: Sequence[str], n: int) -> int:
    """Letters in runs of n words that came before, without overlap."""
    seen: set[tuple[str, ...]] = set()
    letters = at = 0
    while at <= len(words) - n:
        run = tuple(words[at : at + n])
        if run in seen:
            letters += sum(map(len, run))
            at += n
        else:
            seen.add(run)
            at += 1
    return letters


@cache
def _splitter(words: str) -> Callable[[str], list[str]]:
    kind, _, language = words.partition(":")
    return _kiwi_words() if kind == "kiwi" else _spacy_words(language)


def _kiwi_words() -> Callable[[str], list[str]]:
    try:
        from kiwipiepy import Kiwi
    except ImportError as e:
        raise DataError("data.quality for Korean needs kiwipiepy: pip install 'vocabgraft[korean]'") from e
    kiwi: Any = Kiwi(num_workers=1)

    @lru_cache(maxsize=_KEPT_WORDS)
    def parts(word: str) -> tuple[str, ...]:
        return tuple(word[token.start : token.end].strip() for token in kiwi.tokenize(word) if token.len)

    return lambda text: [part for word in _LONG_NUMBER.sub("", text).split() for part in parts(word)]


def _spacy_words(language: str) -> Callable[[str], list[str]]:
    try:
        import spacy
    except ImportError as e:
        raise DataError("data.quality for this language needs spaCy: pip install 'vocabgraft[words]'") from e
    tokenizer: Any = spacy.blank(language).tokenizer
    return lambda text: [word for token in tokenizer(text) if (word := token.text.strip())]
