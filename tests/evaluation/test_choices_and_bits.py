"""Multiple choice and bits per byte equal what one computes by hand with transformers."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from vocabgraft.evaluation.bits import bits_per_byte
from vocabgraft.evaluation.choices import Answer, answer_questions, robustness, rotated
from vocabgraft.evaluation.questions import Question
from vocabgraft.models.load import load_model
from vocabgraft.training.chat import ChatFormat

QUESTIONS = [
    Question("a", "혈압이 높으면 무엇을 줄입니까?", ("소금", "물", "잠", "산책", "채소"), 0),
    Question("b", "Which organ pumps blood?", ("The liver", "The heart"), 1),
    Question("c", "왜?\n두 줄", ("하나", "둘", "셋"), 2),
]
BOS = 2


@pytest.fixture(scope="module")
def texts(korean: tuple[str, ...], english: tuple[str, ...]) -> list[str]:
    cut = [t[:size] for t, size in zip((*korean[:4], *english[:4]), (300, 20, 90, 1, 400, 33, 7, 150), strict=True)]
    return cut


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


@torch.no_grad()
def bits_by_hand(model: Any, tokenizer: Tokenizer, text: str) -> float:
    tokens = torch.tensor([[BOS, *ids(tokenizer, text)]])
    chances = model(input_ids=tokens).logits[0, :-1].double().log_softmax(-1)
    return float(-chances.gather(1, tokens[0, 1:, None]).sum() / math.log(2))


@torch.no_grad()
def test_the_chosen_letter_is_the_most_likely_next_token(world, model: Any, tokenizer: Tokenizer) -> None:
    found = answer_questions(model, tokenizer, ChatFormat(world.base), QUESTIONS, bos="<bos>")
    for question, answer in zip(QUESTIONS, found, strict=True):
        options = "".join(f"\n{letter}. {text}" for letter, text in zip("ABCDE", question.options, strict=False))
        asked = f"<bos><start_of_turn>user\n{question.question}{options}<end_of_turn>\n<start_of_turn>model\n"
        logits = model(input_ids=torch.tensor([ids(tokenizer, asked)])).logits[0, -1]
        letters = [ids(tokenizer, x)[0] for x in "ABCDE"[: len(question.options)]]
        assert answer.chosen == int(logits[letters].argmax())
        assert answer.right == (answer.chosen == question.answer)
        assert answer.id == question.id


def test_rotated_options_are_asked_anew_and_told_by_what_they_are(world, model: Any, tokenizer: Tokenizer) -> None:
    told: list[int] = []
    arguments = (model, tokenizer, ChatFormat(world.base))
    found = answer_questions(*arguments, QUESTIONS, bos="<bos>", rotations=5, on_question=told.append)
    assert [len(a.rotations) for a in found] == [4, 1, 2]
    assert sum(told) == 5 + 2 + 3
    for question, answer in zip(QUESTIONS, found, strict=True):
        for by, chosen in enumerate(answer.rotations, start=1):
            turned = rotated(question, by)
            assert turned.options[turned.answer] == question.options[question.answer]
            (alone,) = answer_questions(*arguments, [turned], bos="<bos>")
            assert turned.options[alone.chosen] == question.options[chosen]


def test_a_model_that_likes_a_letter_is_neither_consistent_nor_always_right() -> None:
    always_a = [Answer(q.id, 0, q.answer == 0, (), tuple(range(1, len(q.options)))) for q in QUESTIONS]
    knows = [Answer(q.id, q.answer, True, (), (q.answer,) * (len(q.options) - 1)) for q in QUESTIONS]
    found = robustness(QUESTIONS, always_a)
    assert (found.orders, found.always_right, found.consistent, found.worst) == (5, 0, 0, 0)
    assert found.mean == pytest.approx((1 / 3 + 1 / 3 + 1 / 2 + 0 + 0) / 5)
    found = robustness(QUESTIONS, knows)
    assert (found.mean, found.worst, found.always_right, found.consistent) == (1, 1, 1, 1)


def test_only_letters_that_are_options_can_be_chosen(world, model: Any, tokenizer: Tokenizer) -> None:
    letter = ids(tokenizer, "E")[0]
    head = model.get_output_embeddings().weight
    kept = head[letter].clone()
    with torch.no_grad():
        hidden_favourite = head.mean(0) * 0 + 1000.0
        head[letter] = hidden_favourite
    try:
        found = answer_questions(model, tokenizer, ChatFormat(world.base), QUESTIONS[1:], bos="<bos>")
    finally:
        with torch.no_grad():
            head[letter] = kept
    assert [a.chosen < 3 for a in found] == [True, True]


def test_progress_is_told_of_every_question(world, model: Any, tokenizer: Tokenizer) -> None:
    told: list[int] = []
    answer_questions(model, tokenizer, ChatFormat(world.base), QUESTIONS, bos="<bos>", on_question=told.append)
    assert sum(told) == 3


def test_bits_equal_the_hand_computation_window_by_window(model: Any, tokenizer: Tokenizer, texts: list[str]) -> None:
    found = bits_per_byte(model, tokenizer, texts, bos=BOS)
    expected = [bits_by_hand(model, tokenizer, t) for t in texts]
    assert list(found.bits) == pytest.approx(expected, rel=1e-5)
    assert list(found.bytes) == [len(t.encode()) for t in texts]
    assert found.tokens == sum(len(ids(tokenizer, t)) for t in texts)
    assert found.per_byte == pytest.approx(sum(expected) / sum(len(t.encode()) for t in texts), rel=1e-5)


def test_what_stands_before_a_window_is_read_and_not_scored(model: Any, tokenizer: Tokenizer, texts: list[str]) -> None:
    before = ["", *texts[:-1]]
    found = bits_per_byte(model, tokenizer, texts, bos=BOS, before=before, batch=3)
    for bits, known, text in zip(found.bits, before, texts, strict=True):
        with torch.no_grad():
            read, scored = [BOS, *ids(tokenizer, known)], ids(tokenizer, text)
            chances = model(input_ids=torch.tensor([[*read, *scored]])).logits[0].double().log_softmax(-1)
        nats = sum(-float(chances[len(read) - 1 + n, i]) for n, i in enumerate(scored))
        assert bits == pytest.approx(nats / math.log(2), rel=1e-5)
    alone = bits_per_byte(model, tokenizer, texts, bos=BOS)
    assert (found.bytes, found.tokens) == (alone.bytes, alone.tokens)
    assert found.bits[0] == pytest.approx(alone.bits[0], rel=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_bits_do_not_depend_on_the_batch_size(model: Any, tokenizer: Tokenizer, texts: list[str], batch: int) -> None:
    expected = bits_per_byte(model, tokenizer, texts, bos=BOS)
    told: list[int] = []
    found = bits_per_byte(model, tokenizer, texts, bos=BOS, batch=batch, on_window=told.append)
    assert list(found.bits) == pytest.approx(list(expected.bits), rel=1e-5)
    assert sum(told) == len(texts)
    assert max(told) <= batch


def test_bits_do_not_depend_on_the_order_of_windows(model: Any, tokenizer: Tokenizer, texts: list[str]) -> None:
    forward = bits_per_byte(model, tokenizer, texts, bos=BOS, batch=3)
    backward = bits_per_byte(model, tokenizer, texts[::-1], bos=BOS, batch=3)
    assert list(forward.bits) == pytest.approx(list(backward.bits)[::-1], rel=1e-5)


def test_a_uniform_model_gives_the_bits_of_its_vocabulary_a_token(
    model: Any, tokenizer: Tokenizer, texts: list[str]
) -> None:
    head = model.get_output_embeddings()
    flat = SimpleNamespace(
        config=model.config,
        get_input_embeddings=model.get_input_embeddings,
        get_output_embeddings=lambda: SimpleNamespace(weight=torch.zeros_like(head.weight)),
        get_decoder=model.get_decoder,
    )
    found = bits_per_byte(flat, tokenizer, texts, bos=BOS)
    assert sum(found.bits) == pytest.approx(found.tokens * math.log2(len(head.weight)), rel=1e-6)


def test_the_soft_cap_of_the_logits_is_applied(world, tokenizer: Tokenizer, texts: list[str]) -> None:
    model = load_model(world.base, dtype="float32")
    model.config.get_text_config().final_logit_softcapping = 0.5
    found = bits_per_byte(model, tokenizer, texts, bos=BOS)
    assert list(found.bits) == pytest.approx([bits_by_hand(model, tokenizer, t) for t in texts], rel=1e-5)
    assert found.bits != bits_per_byte(load_model(world.base, dtype="float32"), tokenizer, texts, bos=BOS).bits
