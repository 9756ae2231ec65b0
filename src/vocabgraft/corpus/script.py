"""Writing systems by name: which characters belong to the language that is being added.

A recipe names a script ("Hangul"); pieces, documents and dictionary entries are then judged by it. Classes come from
Unicode's Script property (UAX #24) as the `regex` package knows it, so no table of code points is kept here.
"""

from __future__ import annotations

import difflib
from collections import Counter
from functools import cache

import regex  # type: ignore[import-untyped,unused-ignore]

from vocabgraft.errors import DataError

_NAMES = (
    "Arabic Armenian Bengali Bopomofo Canadian_Aboriginal Cherokee Cyrillic Devanagari Ethiopic Georgian Greek "
    "Gujarati Gurmukhi Han Hangul Hebrew Hiragana Javanese Kannada Katakana Khmer Lao Latin Malayalam Meetei_Mayek "
    "Mongolian Myanmar Nko Ol_Chiki Oriya Sinhala Syriac Tamil Telugu Thaana Thai Tibetan Tifinagh Yi"
)

#: Script name -> character class. Japanese is written in three scripts at once; 'ー' belongs to two of them.
SCRIPTS: dict[str, str] = {name: rf"\p{{Script={name}}}" for name in _NAMES.split()} | {
    "Japanese": r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}ー]"
}
_BY_FOLDED = {name.casefold(): name for name in SCRIPTS}


@cache
def script_pattern(name: str) -> regex.Pattern[str]:
    """Compile a pattern that matches one character of the script.

    Capitals do not matter ("hangul" works). Raises DataError for an unknown name.
    """
    folded = name.strip().casefold().replace(" ", "_").replace("-", "_")
    if folded not in _BY_FOLDED:
        close = difflib.get_close_matches(folded, _BY_FOLDED, n=1, cutoff=0.5)
        hint = f"did you mean {_BY_FOLDED[close[0]]!r}?" if close else f"known are {', '.join(sorted(SCRIPTS))}"
        raise DataError(f"script {name!r} is unknown; {hint}")
    return regex.compile(SCRIPTS[_BY_FOLDED[folded]])


def share_of_script(text: str, name: str) -> float:
    """Return the share of letters (Unicode category L) that are in the script; 0.0 when there is no letter."""
    inside = script_pattern(name)
    # Characters are counted first, so that each distinct one is classified once: laws are up to 1 MB each.
    letters = {char: count for char, count in Counter(text).items() if char.isalpha()}
    total = sum(letters.values())
    return sum(count for char, count in letters.items() if inside.match(char)) / total if total else 0.0
