"""Scores that compare with lm-evaluation-harness's `kormedmcqa`: its prompt and what it takes for an answer.

Version 2.0 wants the letter and nothing else; 3.0 (lm-eval 0.4.13, pull request 3842) tries the patterns of the paper
(arXiv 2403.01469, appendix B) in turn. Scores of the two do not compare, and 3.0 misreads ordinary Korean and English
(`benchmarks/extractor.py`); ours is `extract`.
"""

from __future__ import annotations

import re
import string

from vocabgraft.evaluation.questions import LETTERS, Question

_V3 = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (r"정답[:\s]*([ABCDE])", r"정답은\s*([ABCDE])\s*입니다", r"\b([ABCDE])\.", r"\b([ABCDE])\b")
]


def prompt(question: Question) -> str:
    """The question as the task asks it; the colon is a full-width one."""
    options = "\n".join(f"{LETTERS[n]}. {text}" for n, text in enumerate(question.options))
    return f"{question.question.strip()}\n{options}\n정답："


def extract_v2(answer: str) -> int | None:
    """0-based index where the answer is a letter, case, punctuation and spaces aside."""
    letter = answer.translate(str.maketrans("", "", string.punctuation + " \n")).upper()
    return LETTERS.index(letter) if len(letter) == 1 and letter in LETTERS[:5] else None


def extract_v3(answer: str) -> int | None:
    """0-based index by the last match of the first pattern that matches."""
    for pattern in _V3:
        if found := pattern.findall(answer):
            return LETTERS.index(found[-1].upper())
    return None
