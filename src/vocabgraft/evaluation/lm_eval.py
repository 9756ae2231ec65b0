"""A bridge to lm-evaluation-harness: its prompt, what it takes for an answer, and task files that give it our items.

Of its `kormedmcqa` task, version 2.0 wants the letter and nothing else; 3.0 (lm-eval 0.4.13, pull request 3842) tries
the patterns of the paper (arXiv 2403.01469, appendix B) in turn. Scores of the two do not compare, and 3.0 misreads
ordinary Korean and English (`benchmarks/extractor.py`); ours is `extract`. `evaluate.written_form` asks as the task
does, for a comparison with published scores. By log-likelihood of the letter, and in writing in that form, both
programs give the same answers to the same items (`benchmarks/evaluation_parity.py`).
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path

from vocabgraft.evaluation.questions import LETTERS, Question

_V3 = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (r"정답[:\s]*([ABCDE])", r"정답은\s*([ABCDE])\s*입니다", r"\b([ABCDE])\.", r"\b([ABCDE])\b")
]

CHOICE = " {}"  # how a letter stands behind the prompt
#: Where the task cuts a reply, each in turn.
UNTIL = ("Q:", "</s>", "<|im_end|>", ".", "\n\n")


def prompt(question: Question) -> str:
    """The question as the task asks it; the colon is a full-width one."""
    options = "\n".join(f"{LETTERS[n]}. {text}" for n, text in enumerate(question.options))
    return f"{question.question.strip()}\n{options}\n정답："


def write_task(folder: Path, name: str, questions: Sequence[Question]) -> None:
    """Write a multiple-choice task of these items that lm-eval (0.4.13) runs offline: `lm_eval --include_path FOLDER`.

    The letter is scored behind the prompt and a space. Samples come back in the order of the questions.
    """
    rows = [
        {"id": q.id, "prompt": prompt(q), "letters": list(LETTERS[: len(q.options)]), "answer": q.answer}
        for q in questions
    ]
    items = folder / f"{name}.jsonl"
    items.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(items.absolute())}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{letters}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": CHOICE.removesuffix("{}"),
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    (folder / f"{name}.yaml").write_text(json.dumps(task, indent=2), "utf-8")  # JSON is YAML


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


#: What each version of the task reads from a reply.
READERS: dict[str, Callable[[str], int | None]] = {"kormedmcqa-2.0": extract_v2, "kormedmcqa-3.0": extract_v3}
