"""One pass of two tokenizers over many texts: what changed, what is no run of base tokens, who disagrees, what is lost.

Each text is encoded once by each program, and all questions are asked of these ids. A difference between programs
that the base has on the same text, by its own files, is the base's and is counted apart: no expansion can mend it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import regex
from tokenizers import Tokenizer

from vocabgraft.tokenizer.compare import PLACEHOLDER, new_pieces, text_of, token_bytes
from vocabgraft.tokenizer.engines import Absent, Engine, hugging_face
from vocabgraft.tokenizer.measure import together

_EXAMPLES = 3
_UNASSIGNED = regex.compile(r"\p{Cn}")


@dataclass(frozen=True)
class Subject:
    """Base and expanded tokenizer, the script of the new pieces, and who else reads the expanded one.

    engines: beside tokenizers. base_engine: the engine of this name for the base, made when first asked for.
    """

    base: Tokenizer
    expanded: Tokenizer
    script: regex.Pattern[str]
    engines: tuple[Engine, ...] = ()
    base_engine: Callable[[str], Engine | Absent] = lambda name: Absent(name, "not given")

    @cached_property
    def readers(self) -> tuple[Engine, Engine]:
        """tokenizers itself, as (base, expanded)."""
        return hugging_face(self.base), hugging_face(self.expanded)

    @cached_property
    def new(self) -> dict[str, int]:
        """New pieces with their ids, in id order."""
        return new_pieces(self.base, self.expanded)

    @cached_property
    def new_texts(self) -> dict[str, str]:
        """The text of each new piece; pieces that are parts of a letter are left out."""
        return text_of(self.expanded, self.new)

    @cached_property
    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Bytes of each token by id, as (base, expanded)."""
        return token_bytes(self.base), token_bytes(self.expanded)

    @cached_property
    def specials(self) -> dict[int, str]:
        """Special tokens of the expanded tokenizer by id. The unknown token is none here: any text may give it."""
        unknown = getattr(self.expanded.model, "unk_token", None)
        added = self.expanded.get_added_tokens_decoder().items()
        return {i: t.content for i, t in added if t.special and t.content != unknown}

    @property
    def special_names(self) -> list[str]:
        """Names of special tokens that mean something, and of a few placeholders that are still there."""
        names = list(self.specials.values())
        held = [n for n in names if PLACEHOLDER.fullmatch(n)]
        return [n for n in names if not PLACEHOLDER.fullmatch(n)][:50] + held[:2] + held[-1:]


@dataclass
class Sweep:
    """An account of texts read; `faults` counts by kind, `examples` keeps the first few of each."""

    subject: Subject
    texts: int = 0
    bytes: int = 0
    without_script: int = 0
    tokens_before: int = 0
    tokens_after: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    own: Counter[str] = field(default_factory=Counter)

    def read(self, texts: Iterable[str], done: Callable[[int], None] = lambda _: None) -> None:
        """Ask every question of every text; `done` hears how many texts, some at a time."""
        for some in together(texts):
            self._read(some)
            done(len(some))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "texts": self.texts,
            "bytes": self.bytes,
            "texts_without_the_script": self.without_script,
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
            "faults": dict(sorted(self.faults.items())),
            "examples": {k: [shorten(t) for t in v] for k, v in sorted(self.examples.items())},
            "differences_the_base_has_too": dict(sorted(self.own.items())),
        }

    def _read(self, texts: list[str]) -> None:
        base, expanded = self.subject.readers
        before, after = base.encode(texts), expanded.encode(texts)
        self.texts += len(texts)
        self.bytes += sum(len(t.encode()) for t in texts)
        self.tokens_before += sum(map(len, before))
        self.tokens_after += sum(map(len, after))
        plain = [self.subject.script.search(t) is None for t in texts]
        self.without_script += sum(plain)
        for text, old, new, no_script in zip(texts, before, after, plain, strict=True):
            if old != new:
                self._compare(text, old, new, no_script)
        self._restore(texts, before, after)
        for engine in self.subject.engines:
            found = disagreements(self.subject, engine, texts, after)
            for text in found.faults:
                self._note(engine.name, text)
            if found.own:
                self.own[engine.name] += found.own

    def _compare(self, text: str, old: list[int], new: list[int], no_script: bool) -> None:
        if no_script:
            self._note("changed for unassigned letters" if self._unassigned(text) else "changed", text)
        if not is_coarser(self.subject.sizes, old, new):
            self._note("no run of base tokens", text)
        if len(new) > len(old):
            self._note("longer", text)

    def _unassigned(self, text: str) -> bool:
        """Whether the text changed for letters alone that Unicode has not assigned.

        U+D7A4 … share their first bytes with Hangul, so a byte-level piece of two bytes is theirs too.
        """
        rest = _UNASSIGNED.sub("", text)
        (old,), (new,) = (reader.encode([rest]) for reader in self.subject.readers)
        return rest != text and old == new

    def _restore(self, texts: list[str], before: list[list[int]], after: list[list[int]]) -> None:
        back = self.subject.expanded.decode_batch(after, skip_special_tokens=False)
        for text, old, found in zip(texts, before, back, strict=True):
            if found != text and self.subject.base.decode(old, skip_special_tokens=False) == text:
                self._note("not restored", text)

    def _note(self, kind: str, text: str) -> None:
        self.faults[kind] += 1
        kept = self.examples.setdefault(kind, [])
        if len(kept) < _EXAMPLES:
            kept.append(text)


@dataclass(frozen=True)
class Disagreements:
    """Texts on which an engine and tokenizers differ though the base agrees, and how many differ in the base too."""

    faults: tuple[str, ...]
    own: int


def disagreements(
    subject: Subject, engine: Engine, texts: Sequence[str], ids: Sequence[Sequence[int]]
) -> Disagreements:
    """Compare an engine of the expanded tokenizer with `ids`, which tokenizers gave for the same texts.

    A text on which the base differs too is looked at again line by line, so that one odd line hides nothing.
    """
    specials = subject.specials.keys()
    asked = [(t, i) for t, i in zip(texts, ids, strict=True) if engine.reads_specials or specials.isdisjoint(i)]
    found = engine.encode([t for t, _ in asked])
    differ = [t for (t, i), f in zip(asked, found, strict=True) if f != i]
    if not differ:
        return Disagreements((), 0)
    other = subject.base_engine(engine.name)
    if isinstance(other, Absent):
        return Disagreements(tuple(differ), 0)
    reader = subject.readers[0]
    rows = list(zip(differ, reader.encode(differ), other.encode(differ), strict=True))
    faults = tuple(t for t, a, b in rows if a == b)
    return _line_by_line(subject, engine, faults, [t for t, a, b in rows if a != b])


def _line_by_line(subject: Subject, engine: Engine, faults: tuple[str, ...], own: list[str]) -> Disagreements:
    whole = [t for t in own if len(t.splitlines()) < 2]
    lines = [line for t in own if len(t.splitlines()) > 1 for line in t.splitlines(keepends=True)]
    if not lines:
        return Disagreements(faults, len(whole))
    inside = disagreements(subject, engine, lines, subject.readers[1].encode(lines))
    return Disagreements(faults + inside.faults, len(whole) + max(inside.own, len(own) - len(whole)))


def is_coarser(sizes: tuple[np.ndarray, np.ndarray], old: Sequence[int], new: Sequence[int]) -> bool:
    """Whether each token of `new` is a run of tokens of `old`; `sizes` are bytes by id, as (old, new)."""
    before, after = (np.cumsum(size[ids]) if len(ids) else ids for size, ids in zip(sizes, (old, new), strict=True))
    return bool(np.isin(after, before).all()) and (not len(old) or before[-1] == after[-1])


def blocks_without(text: str, script: regex.Pattern[str]) -> list[str]:
    """The longest runs of lines of a text that hold no letter of the script; nothing for a text without any."""
    if script.search(text) is None:
        return []
    blocks: list[str] = []
    joins = False
    for line in text.splitlines(keepends=True):
        if script.search(line):
            joins = False
        elif joins:
            blocks[-1] += line
        else:
            blocks.append(line)
            joins = True
    return blocks


def shorten(text: str, letters: int = 60) -> str:
    """The beginning of a text, for an example."""
    return text if len(text) <= letters else text[:letters] + "…"
