"""Questions answered in writing: what a user would get, read by `extract`, with what went wrong counted.

Beside the log-likelihood of letters (`choices`), which asks what a model knows, this asks whether it says so: whether
there is an answer in the text, whether the text ends, and in which language it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer

from vocabgraft.corpus.script import share_of_script
from vocabgraft.evaluation.extract import extract
from vocabgraft.evaluation.questions import Question, prompt
from vocabgraft.training.chat import ChatFormat

_LETTERS = 5  # a reply with fewer says nothing of its language: "B"


@dataclass(frozen=True)
class Written:
    """One reply: the option read from it (None: none, or more than one), and how it ended."""

    id: str
    text: str
    chosen: int | None
    right: bool
    tokens: int
    stopped: bool
    """Ended by the model, not by the limit."""
    in_language: bool | None
    """Whether most of its letters are of the language's script; None where there are too few to tell."""


@dataclass(frozen=True)
class Rates:
    """Shares of 1 of all replies; `in_language` of those that have enough letters, None without any."""

    n: int
    right: int
    extracted: float
    stopped: float
    truncated: float
    in_language: float | None


@torch.no_grad()
def write_answers(
    model: Any,
    tokenizer: Tokenizer,
    chat: ChatFormat,
    questions: Sequence[Question],
    *,
    bos: str,
    script: str,
    most: int,
    on_question: Callable[[int], None] = lambda n: None,
) -> list[Written]:
    """Greedy replies of at most `most` tokens, one question at a time, so that none depends on its company."""
    eos = model.generation_config.eos_token_id
    ends = {*eos} if isinstance(eos, list) else {eos} - {None}
    found = []
    for question in questions:
        opening = torch.tensor([chat.opening(tokenizer, bos, prompt(question))], device=model.device)
        reply = model.generate(
            input_ids=opening,
            attention_mask=torch.ones_like(opening),
            max_new_tokens=most,
            do_sample=False,
            top_k=None,
            top_p=None,
            eos_token_id=sorted(ends) or None,
            pad_token_id=min(ends, default=0),
        )[0, opening.shape[1] :].tolist()
        stopped = bool(reply) and reply[-1] in ends
        text = tokenizer.decode([t for t in reply if t not in ends], skip_special_tokens=True)
        found.append(_read(question, text, len(reply), stopped, script))
        on_question(1)
    return found


def _read(question: Question, text: str, tokens: int, stopped: bool, script: str) -> Written:
    chosen = extract(text, question.options)
    enough = sum(c.isalpha() for c in text) >= _LETTERS
    language = share_of_script(text, script) >= 0.5 if enough else None
    return Written(question.id, text, chosen, chosen == question.answer, tokens, stopped, language)


def rates(replies: Sequence[Written]) -> Rates:
    """What became of the replies."""
    n = max(1, len(replies))
    told = [r.in_language for r in replies if r.in_language is not None]
    return Rates(
        len(replies),
        sum(r.right for r in replies),
        sum(r.chosen is not None for r in replies) / n,
        sum(r.stopped for r in replies) / n,
        sum(not r.stopped for r in replies) / n,
        sum(told) / len(told) if told else None,
    )
