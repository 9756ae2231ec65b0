"""Replies are those of greedy decoding, and what became of them is counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from vocabgraft.evaluation import lm_eval
from vocabgraft.evaluation.questions import Question, prompt
from vocabgraft.evaluation.written import Form, Rates, Written, chat_form, lm_eval_form, rates, write_answers
from vocabgraft.training.chat import ChatFormat

QUESTIONS = [
    Question("a", "혈압이 높으면 무엇을 줄입니까?", ("소금", "물", "잠", "산책", "채소"), 0),
    Question("b", "Which organ pumps blood?", ("The liver", "The heart"), 1),
]


@torch.no_grad()
def greedy(model: Any, ids: list[int], most: int) -> list[int]:
    """Without a cache, token by token."""
    found: list[int] = []
    while len(found) < most:
        found.append(int(model(input_ids=torch.tensor([[*ids, *found]])).logits[0, -1].argmax()))
    return found


def test_replies_are_greedy_and_cut_at_the_limit(world, model: Any, tokenizer: Tokenizer) -> None:
    chat, told = ChatFormat(world.base), []
    form = chat_form(tokenizer, chat, "<bos>")
    found = write_answers(model, tokenizer, form, QUESTIONS, script="Hangul", most=6, on_question=told.append)
    assert told == [1, 1]
    for question, reply in zip(QUESTIONS, found, strict=True):
        ids = greedy(model, chat.opening(tokenizer, "<bos>", prompt(question)), 6)
        assert reply.text == tokenizer.decode(ids, skip_special_tokens=True)
        assert (reply.tokens, reply.stopped) == (6, False)


def test_a_reply_that_the_model_ends_is_told_from_one_that_is_cut(
    world, model: Any, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = ChatFormat(world.base)
    first = greedy(model, chat.opening(tokenizer, "<bos>", prompt(QUESTIONS[0])), 1)[0]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [first, 1])
    form = chat_form(tokenizer, chat, "<bos>")
    (reply,) = write_answers(model, tokenizer, form, QUESTIONS[:1], script="Hangul", most=6)
    assert (reply.tokens, reply.stopped, reply.text) == (1, True, "")


@pytest.mark.parametrize(
    ("text", "chosen", "language"),
    [
        ("정답은 1번 소금입니다. 짜게 먹으면 혈압이 오릅니다.", 0, True),
        ("The answer is B.", 1, False),
        ("C", 2, None),
        ("잘 모르겠습니다.", None, True),
    ],
)
def test_replies_are_read(
    world, model: Any, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, text: str, chosen: int, language: bool
) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    monkeypatch.setattr(model, "generate", lambda input_ids, **_: torch.cat([input_ids, torch.tensor([[*ids, 1]])], 1))
    monkeypatch.setattr(model.generation_config, "eos_token_id", [1])
    form = chat_form(tokenizer, ChatFormat(world.base), "<bos>")
    (reply,) = write_answers(model, tokenizer, form, QUESTIONS[:1], script="Hangul", most=99)
    assert (reply.chosen, reply.in_language, reply.stopped) == (chosen, language, True)
    assert reply.right == (chosen == 0)


def test_a_task_of_lm_eval_asks_in_bare_text_and_cuts_where_it_does(
    world, model: Any, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = lm_eval_form(tokenizer, 2, "kormedmcqa-3.0")
    opening = asked.opening(QUESTIONS[0])
    assert opening == [2, *tokenizer.encode(lm_eval.prompt(QUESTIONS[0]), add_special_tokens=False).ids]
    (plain,) = write_answers(model, tokenizer, Form(asked.opening, asked.read), QUESTIONS[:1], script="Hangul", most=8)
    end = plain.text[len(plain.text) // 2]
    until = Form(asked.opening, asked.read, (end,))
    (reply,) = write_answers(model, tokenizer, until, QUESTIONS[:1], script="Hangul", most=8)
    assert reply.stopped
    assert reply.text == plain.text.partition(end)[0]
    assert reply.tokens < plain.tokens


@pytest.mark.parametrize(
    ("text", "version", "chosen"), [("정답: B", "2.0", None), ("정답: B", "3.0", 1), ("b", "2.0", 1)]
)
def test_a_task_of_lm_eval_reads_as_its_version_does(
    tokenizer: Tokenizer, text: str, version: str, chosen: int | None
) -> None:
    assert lm_eval_form(tokenizer, 2, f"kormedmcqa-{version}").read(text, QUESTIONS[0].options) == chosen


def test_rates_count_what_became_of_replies() -> None:
    replies = [
        Written("a", "", 0, True, 5, True, True),
        Written("b", "", None, False, 9, False, False),
        Written("c", "", 1, False, 5, True, None),
        Written("d", "", 2, False, 9, False, True),
    ]
    assert rates(replies) == Rates(4, 1, 0.75, 0.5, 0.5, pytest.approx(2 / 3))
    assert rates(replies[2:3]).in_language is None
    assert rates([]).n == 0
