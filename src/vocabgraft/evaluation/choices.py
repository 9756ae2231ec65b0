"""Multiple choice by log-likelihood: which letter would the model say first?

The question is asked in the chat format and the log-probabilities of the letters are compared. No text is generated,
so there is no answer to extract and no way to be wrong about it. Asked again with its options moved on by one, and so
on, a question shows whether the model knows the answer or likes a letter (Zheng et al. 2023, arXiv 2309.03882).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import Tokenizer

from vocabgraft.evaluation.likelihood import Endings, log_likelihoods
from vocabgraft.evaluation.questions import LETTERS, Question, prompt
from vocabgraft.training.chat import ChatFormat


@dataclass(frozen=True)
class Answer:
    """What the model chose for one question; `scores` are the options' log-probabilities, nats.

    rotations: the option chosen with the options moved on by 1, 2, …, as an index into the question as it stands.
    """

    id: str
    chosen: int
    right: bool
    scores: tuple[float, ...] = ()
    rotations: tuple[int, ...] = ()


def answer_questions(
    model: Any,
    tokenizer: Tokenizer,
    chat: ChatFormat,
    questions: Sequence[Question],
    *,
    bos: str,
    rotations: int = 1,
    on_question: Callable[[int], None] = lambda n: None,
) -> list[Answer]:
    """The most probable letter, question by question; rotations: orders of the options to ask in, the given one first.

    `on_question` is told of every order of every question.
    """
    orders = [(n, by) for n, q in enumerate(questions) for by in range(min(rotations, len(q.options)))]
    letters = [tuple(tokenizer.encode(x, add_special_tokens=False).ids) for x in LETTERS]
    texts = [
        Endings(
            tuple(chat.opening(tokenizer, bos, prompt(rotated(questions[n], by)))),
            tuple(letters[: len(questions[n].options)]),
        )
        for n, by in orders
    ]
    scores: list[list[list[float]]] = [[] for _ in questions]
    for (n, _), found in zip(orders, log_likelihoods(model, texts, on_text=on_question), strict=True):
        scores[n].append(found)
    return [_answer(q, found) for q, found in zip(questions, scores, strict=True)]


def rotated(question: Question, by: int) -> Question:
    """The question with its options moved on: the option at index `by` comes first."""
    options = (*question.options[by:], *question.options[:by])
    return replace(question, options=options, answer=(question.answer - by) % len(options))


def _answer(question: Question, scores: Sequence[Sequence[float]]) -> Answer:
    best = [max(range(len(each)), key=each.__getitem__) for each in scores]
    moved = tuple((letter + by) % len(question.options) for by, letter in enumerate(best))
    return Answer(question.id, moved[0], moved[0] == question.answer, tuple(scores[0]), moved[1:])


@dataclass(frozen=True)
class Robustness:
    """Accuracy over all orders of the options, shares of 1."""

    orders: int
    mean: float
    worst: float
    always_right: float
    consistent: float
    """Share of questions with the same option chosen in every order."""


def robustness(questions: Sequence[Question], answers: Sequence[Answer]) -> Robustness:
    """How much of an accuracy is knowledge and how much liking of a letter."""
    chosen = [(a.chosen, *a.rotations) for a in answers]
    right = [[c == q.answer for c in each] for q, each in zip(questions, chosen, strict=True)]
    orders = max(map(len, right))
    by_order = [[each[k] for each in right if k < len(each)] for k in range(orders)]
    shares = [sum(each) / len(each) for each in by_order]
    n = len(questions)
    return Robustness(
        orders,
        sum(shares) / orders,
        min(shares),
        sum(map(all, right)) / n,
        sum(len(set(each)) == 1 for each in chosen) / n,
    )
