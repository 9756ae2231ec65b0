"""Clean texts, drop poor ones with a reason, and cut long ones without losing a character.

The rules are the plain end of Gopher's (arXiv 2112.11446, appendix A1): length, script, repetition. What is not
listed here is kept: a filter nobody can explain is worse than some noise.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from vocabgraft.corpus.script import share_of_script
from vocabgraft.errors import DataError

#: A line or a run of five words that makes more than this share of a text makes it repetitive.
MAX_REPEATED_SHARE = 0.3
_WORDS_IN_RUN = 5

_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Cc without tab and newline, byte-order marks, and lone surrogates, which no file can hold.
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")
_SPACES = re.compile(r"[^\S\n]+")
_SPACE_AT_LINE_EDGE = re.compile(r" ?\n ?")
_BLANK_LINES = re.compile(r"\n{3,}")
_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’)\]」』]*\s+|[。！？]")


def clean_text(text: str) -> str:
    """Return the text in NFC with plain spaces and line ends, without control characters and byte-order marks.

    Runs of spaces, tabs and other horizontal space become one space, three or more line ends two. Idempotent.
    """
    text = _UNWANTED.sub("", _LINE_END.sub("\n", text))
    text = _SPACE_AT_LINE_EDGE.sub("\n", _SPACES.sub(" ", text))
    # NFC last: what stood between a letter and its accent is gone now.
    return unicodedata.normalize("NFC", _BLANK_LINES.sub("\n\n", text)).strip()


def reason_to_drop(
    text: str, *, script: str | None, min_script_share: float, min_chars: int, max_chars: int
) -> str | None:
    """Say why a text is not wanted: 'too short', 'too long', 'wrong script' or 'repetitive'; None to keep it."""
    if len(text) < min_chars:
        return "too short"
    if len(text) > max_chars:
        return "too long"
    if script is not None and share_of_script(text, script) < min_script_share:
        return "wrong script"
    if _repeats_a_line(text) or _repeats_a_run(text.split()):
        return "repetitive"
    return None


def split_long(text: str, max_chars: int) -> list[str]:
    """Cut a text into pieces of at most `max_chars`: `"".join(pieces) == text`.

    Each piece ends where the latest paragraph ends in its second half; failing that a line, a sentence, a word; and
    only in a text without any of these between two characters.
    """
    if max_chars < 1:
        raise DataError(f"a piece of {max_chars} characters was asked for; it takes at least 1")
    pieces, start = [], 0
    while len(text) - start > max_chars:
        cut = _cut(text, start, max_chars)
        pieces.append(text[start:cut])
        start = cut
    return [*pieces, text[start:]] if start < len(text) else pieces


def _cut(text: str, start: int, max_chars: int) -> int:
    earliest, end = start + max_chars // 2, start + max_chars
    for mark in ("\n\n", "\n"):
        if (found := text.rfind(mark, earliest, end)) >= 0:
            return found + len(mark)
    if sentences := [match.end() for match in _SENTENCE_END.finditer(text, earliest, end)]:
        return sentences[-1]
    if (found := text.rfind(" ", earliest, end)) >= 0:
        return found + 1
    # Not between a letter and the marks that belong to it, unless it carries them without end.
    cut = end
    while cut > earliest and unicodedata.category(text[cut])[0] == "M":
        cut -= 1
    return cut if cut > earliest else end


def _repeats_a_line(text: str) -> bool:
    lines = Counter(line for line in map(str.strip, text.splitlines()) if line)
    total = sum(len(line) * count for line, count in lines.items())
    return any(count > 1 and len(line) * count > MAX_REPEATED_SHARE * total for line, count in lines.items())


def _repeats_a_run(words: list[str]) -> bool:
    """Tell whether one run of five words, counted without overlap, holds too much of the letters."""
    masses = {word: len(word) * count for word, count in Counter(words).items()}
    allowed = MAX_REPEATED_SHARE * sum(masses.values())
    # A run holds at most what its five words hold wherever they stand, and that is quick to know.
    if sum(sorted(masses.values())[-_WORDS_IN_RUN:]) <= allowed:
        return False
    last: dict[tuple[str, ...], int] = {}
    held: Counter[tuple[str, ...]] = Counter()
    for i in range(len(words) - _WORDS_IN_RUN + 1):
        run = tuple(words[i : i + _WORDS_IN_RUN])
        if i - last.get(run, -_WORDS_IN_RUN) >= _WORDS_IN_RUN:
            last[run] = i
            held[run] += 1
    return any(count > 1 and count * sum(map(len, run)) > allowed for run, count in held.items())
