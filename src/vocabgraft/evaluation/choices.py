"""Multiple choice by log-likelihood: which letter would the model say first?

The question is asked in the chat format and the letters' next-token scores are compared. No text is generated,
so there is no answer to extract and no way to be wrong about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer

from vocabgraft.evaluation.questions import LETTERS, Question, prompt
from vocabgraft.models.load import decoder_of
from vocabgraft.training.chat import ChatFormat


@dataclass(frozen=True)
class Answer:
    """What the model chose for one question."""

    id: str
    chosen: int
    right: bool


@torch.no_grad()
def answer_questions(
    model: Any,
    tokenizer: Tokenizer,
    chat: ChatFormat,
    questions: Sequence[Question],
    *,
    bos: str,
    on_question: Callable[[int], None] = lambda n: None,
) -> list[Answer]:
    """The letter with the highest next-token score, question by question."""
    head = model.get_output_embeddings().weight
    embed = model.get_input_embeddings()
    letters = [tokenizer.encode(x, add_special_tokens=False).ids[0] for x in LETTERS]
    found = []
    for question in questions:
        ids = torch.tensor([chat.opening(tokenizer, bos, prompt(question))], device=head.device)
        hidden = decoder_of(model)(inputs_embeds=embed(ids), use_cache=False).last_hidden_state[0, -1]
        scores = head[letters[: len(question.options)]].float() @ hidden.float()
        chosen = int(scores.argmax())
        found.append(Answer(question.id, chosen, chosen == question.answer))
        on_question(1)
    return found
