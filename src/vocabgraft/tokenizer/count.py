"""Count words once. No Gemma piece spans a space inside a line (one exception, `>▁</`, holds no letters),
so the tokens of a text follow from the tokens of its words, and training needs the words alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import regex

_WORD = regex.compile(r" ?[^\s]+")


def count_words(texts: Iterable[str], script: regex.Pattern[str]) -> Counter[str]:
    """Occurrences of every word that holds a letter of the script; a leading space belongs to the word.

    Example: "혈압 혈압이" -> {"혈압": 1, " 혈압이": 1}.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_WORD.findall(text))
    return Counter({word: n for word, n in counts.items() if script.search(word)})
