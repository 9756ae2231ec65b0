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
from transformers import StoppingCriteriaList

from vocabgraft.corpus.script import share_of_script
from vocabgraft.evaluation import lm_eval
from vocabgraft.evaluation.extract import extract
from vocabgraft.evaluation.questions import Question, prompt
from vocabgraft.training.chat import ChatFormat

_LETTERS = 5  # a reply with fewer says nothing of its language: "B"


@dataclass(frozen=True)
class Form:
    """How a question is put, and what is read from a reply.

    opening: ids up to where the model is to answer. read: (reply, options) to the option. until: texts that end a
    reply; it is cut before each in turn.
    """

    opening: Callable[[Question], list[int]]
    read: Callable[[str, Sequence[str]], int | None]
    until: tuple[str, ...] = ()


def chat_form(tokenizer: Tokenizer, chat: ChatFormat, bos: str) -> Form:
    """As a user asks: in the chat format, read by `extract`."""
    return Form(lambda q: chat.opening(tokenizer, bos, prompt(q)), extract)


def lm_eval_form(tokenizer: Tokenizer, bos: int, task: str) -> Form:
    """As lm-eval's task asks, by name and version (`lm_eval.READERS`): bare text behind BOS."""
    read = lm_eval.READERS[task]

    def opening(question: Question) -> list[int]:
        return [bos, *tokenizer.encode(lm_eval.prompt(question), add_special_tokens=False).ids]

    return Form(opening, lambda text, options: read(text), lm_eval.UNTIL)


@dataclass(frozen=True)
class Written:
    """One reply: the option read from it (None: none, or more than one), and how it ended."""

    id: str
    text: str
    chosen: int | None
    right: bool
    tokens: int
    stopped: bool
    """Ended by the model or by a text of the form, not by the limit."""
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
    form: Form,
    questions: Sequence[Question],
    *,
    script: str,
    most: int,
    on_question: Callable[[int], None] = lambda n: None,
) -> list[Written]:
    """Greedy replies of at most `most` tokens, one question at a time, so that none depends on its company."""
    eos = model.generation_config.eos_token_id
    ends = {*eos} if isinstance(eos, list) else {eos} - {None}

    def text_of(ids: Sequence[int]) -> str:
        return str(tokenizer.decode([t for t in ids if t not in ends], skip_special_tokens=True))

    found = []
    for question in questions:
        opening = torch.tensor([form.opening(question)], device=model.device)
        start = opening.shape[1]

        def ended(ids: torch.Tensor, scores: Any, start: int = start) -> torch.Tensor:
            text = text_of(ids[0, start:].tolist())
            return torch.tensor([any(end in text for end in form.until)], device=ids.device)

        reply = model.generate(
            input_ids=opening,
            attention_mask=torch.ones_like(opening),
            max_new_tokens=most,
            do_sample=False,
            top_k=None,
            top_p=None,
            eos_token_id=sorted(ends) or None,
            pad_token_id=min(ends, default=0),
            stopping_criteria=StoppingCriteriaList([ended] if form.until else []),
        )[0, start:].tolist()
        text = text_of(reply)
        cut = _before(text, form.until)
        stopped = cut != text or (bool(reply) and reply[-1] in ends)
        found.append(_read(question, cut, form.read(cut, question.options), len(reply), stopped, script))
        on_question(1)
    return found


def _before(text: str, until: Sequence[str]) -> str:
    for end in until:
        text = text.partition(end)[0]
    return text


def _read(question: Question, text: str, chosen: int | None, tokens: int, stopped: bool, script: str) -> Written:
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
