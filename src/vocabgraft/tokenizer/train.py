"""Continued BPE: learn new merges over the base tokenizer's own segmentation of the target language.

Every new piece is a run of base pieces, so it is reachable and its parts are known. Only runs of base pieces written
wholly in the target script are offered: no digit, punctuation or foreign letter can get inside a piece, and text
without the script keeps its ids. Idea: Purason et al., arXiv 2512.03989; the restriction to one script is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import regex
from tokenizers import Tokenizer

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.count import WordCounts, encoded
from vocabgraft.tokenizer.merges import Ints, learn_merges
from vocabgraft.tokenizer.spelling import LETTER_OF_BYTE, bytes_of, is_byte_level
from vocabgraft.tokenizer.vocabulary import SPACE

OUTSIDE, FIRST, INSIDE = 0, 1, 2
"""Where a base piece may stand in a run: not at all, only at its beginning (it begins with a space), anywhere."""


@dataclass(frozen=True)
class Candidate:
    """A possible new piece, the base ids that spell it, the two pieces whose merge made it, and that merge's count."""

    piece: str
    parts: tuple[int, ...]
    merge: tuple[str, str] = ("", "")
    count: int = 0


def train_pieces(
    base: Tokenizer,
    counts: WordCounts,
    *,
    script: regex.Pattern[str],
    size: int,
    min_count: int,
    cross_word: bool = False,
) -> list[Candidate]:
    """Learn up to `size` new merges; fewer when no pair occurs `min_count` times.

    A smaller `size` gives a prefix of a larger one. With `cross_word` a piece may hold a space inside, if the words
    of `counts` do (count whole lines then); byte-level tokenizers cut at spaces before merging and cannot.
    Raises TokenizerError when the corpus has no run of the script.
    """
    names = {i: piece for piece, i in base.get_vocab(with_added_tokens=True).items()}
    level = is_byte_level(base)
    if level and cross_word:
        raise TokenizerError(
            "tokenizer.cross_word: a byte-level tokenizer cuts at spaces before it merges; set it false"
        )
    ids, lengths, times = runs_of_script(base, counts, script, cross_word=cross_word)
    if not len(ids):
        raise TokenizerError("the corpus holds no word of the target script; check data.target and data.script")
    spelt = names.copy()
    parts: dict[int, tuple[int, ...]] = {i: (i,) for i in np.unique(ids).tolist()}
    known = set(names.values())
    fits = _only_in_script(script) if level else None

    def allowed(left: int, right: int, new: int) -> bool:
        piece = spelt[left] + spelt[right]
        if piece in known or (fits is not None and not fits(bytes_of(piece))):
            return False
        known.add(piece)
        spelt[new], parts[new] = piece, parts[left] + parts[right]
        return True

    first = max(names) + 1
    learnt = learn_merges(ids, lengths, times, first_new=first, size=size, min_count=min_count, allowed=allowed)
    return [Candidate(spelt[m.new], parts[m.new], (spelt[m.left], spelt[m.right]), m.count) for m in learnt]


def _places(names: dict[int, str], script: regex.Pattern[str], level: bool) -> np.ndarray:
    """OUTSIDE, FIRST or INSIDE for each id, (ids,) int8."""
    found = np.zeros(max(names) + 1, np.int8)
    inside = regex.compile(rf"(?:{script.pattern})+")
    of_bytes = _part_of_script(script)
    for i, piece in names.items():
        if level:
            found[i] = of_bytes(piece)
        elif piece == SPACE:
            found[i] = FIRST
        elif inside.fullmatch(piece.removeprefix(SPACE)):
            found[i] = FIRST if piece.startswith(SPACE) else INSIDE
    return found


def _part_of_script(script: regex.Pattern[str]) -> Callable[[str], int]:
    """The place of a byte-level piece: bytes of the script's letters, the first and last of them perhaps in part."""
    space = LETTER_OF_BYTE[ord(" ")]
    whole = regex.compile(rf"(?:{script.pattern})*")

    def place(piece: str) -> int:
        if piece == space:
            return FIRST
        try:
            raw = bytes_of(piece.removeprefix(space))
        except KeyError:  # an added token is spelt in plain letters
            return OUTSIDE
        middle = raw.lstrip(bytes(range(0x80, 0xC0)))
        text = middle.decode("utf-8", "ignore")
        left_over = len(middle) - len(text.encode())
        if min(raw) < 0x80 or left_over > 3 or not whole.fullmatch(text):
            return OUTSIDE
        return FIRST if piece.startswith(space) else INSIDE

    return place


def _only_in_script(script: regex.Pattern[str]) -> Callable[[bytes], bool]:
    """Whether bytes can occur in text of the script alone.

    They must begin with a letter's first byte; a letter cut off at the end must be of the script however it goes on
    (EA B0 can only begin one of 가 … 갿), or be no letter at all (unassigned).
    """
    letter = regex.compile(script.pattern)
    unassigned = regex.compile(r"\p{Cn}")

    @cache
    def own_prefix(start: bytes) -> bool:
        found = _completions(start)
        return any(map(letter.match, found)) and all(letter.match(c) or unassigned.match(c) for c in found)

    def fits(raw: bytes) -> bool:
        raw = raw.removeprefix(b" ")
        text = raw.decode("utf-8", "ignore")
        rest = raw[len(text.encode()) :]
        if not raw or 0x80 <= raw[0] < 0xC0 or not all(map(letter.match, text)):
            return False
        return own_prefix(rest) if rest else True

    return fits


def _completions(start: bytes) -> list[str]:
    """All characters whose UTF-8 is longer and begins with these bytes; none is listed for a whole plane."""
    missing = (2 if start[0] < 0xE0 else 3 if start[0] < 0xF0 else 4) - len(start)
    if not 1 <= missing <= 2:
        return []
    ends = product(range(0x80, 0xC0), repeat=missing)
    return [c for end in ends if (c := (start + bytes(end)).decode("utf-8", "ignore"))]


def runs_of_script(
    base: Tokenizer, counts: WordCounts, script: regex.Pattern[str], *, cross_word: bool = False
) -> tuple[Ints, Ints, Ints]:
    """Maximal runs of two and more ids of the script, which may merge: (ids one run after the other, lengths, counts).

    A piece that begins with a space opens a run, unless spaces may stand inside: a text may hold a literal ▁ in the
    middle of a word.
    """
    names = {i: piece for piece, i in base.get_vocab(with_added_tokens=True).items()}
    places = _places(names, script, is_byte_level(base))
    found: list[tuple[Ints, Ints, Ints]] = []
    for ids, lengths, times in encoded(base, counts):
        if not len(ids):
            continue
        lengths, times = lengths[lengths > 0], times[lengths > 0]
        here = places[ids]
        starts = np.zeros(len(ids), bool)
        starts[np.cumsum(lengths) - lengths] = True
        opens = starts | np.append(True, here[:-1] == OUTSIDE)
        if not cross_word:
            opens |= here == FIRST
        inside = here != OUTSIDE
        run = np.cumsum(opens & inside)[inside]
        ids, weights = ids[inside], np.repeat(times, lengths)[inside]
        first = np.flatnonzero(np.append(True, run[1:] != run[:-1])) if len(run) else np.zeros(0, np.int64)
        sizes = np.diff(np.append(first, len(ids)))
        long = np.repeat(sizes > 1, sizes)
        found.append((ids[long], sizes[sizes > 1], weights[first][sizes > 1]))
    if not found:
        empty = np.zeros(0, np.int64)
        return empty, empty, empty
    ids, sizes, weights = (np.concatenate(column) for column in zip(*found, strict=True))
    return ids, sizes, weights
