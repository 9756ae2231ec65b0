"""Log-likelihoods equal those of whole forward passes, one ending at a time, and do not depend on company."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from vocabgraft.evaluation.likelihood import Endings, encode_endings, log_likelihoods

BOS = 2
token = st.integers(5, 300)


@torch.no_grad()
def by_hand(model: Any, context: tuple[int, ...], ending: tuple[int, ...]) -> float:
    logits = model(input_ids=torch.tensor([[*context, *ending]])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(context) - 1 + n, t]) for n, t in enumerate(ending))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.lists(token, max_size=40), st.lists(st.lists(token, min_size=1, max_size=4), min_size=1,
                          max_size=4)), min_size=1, max_size=5))  # fmt: skip
def test_scores_equal_those_of_whole_passes(model: Any, drawn: list[tuple[list[int], list[list[int]]]]) -> None:
    texts = [Endings((BOS, *context), tuple(map(tuple, ends))) for context, ends in drawn]
    told: list[int] = []
    found = log_likelihoods(model, texts, on_text=told.append)
    assert sum(told) == len(texts)
    for text, scores in zip(texts, found, strict=True):
        right = [by_hand(model, text.context, ending) for ending in text.continuations]
        assert scores == pytest.approx(right, abs=1e-4)


def test_a_text_gets_the_same_alone_and_among_others(model: Any) -> None:
    random = torch.Generator().manual_seed(0)
    texts = [
        Endings((BOS, *torch.randint(5, 300, (n,), generator=random).tolist()), ((7,), (8,), (9,)))
        for n in (3, 90, 500, 17, 1, 200, 90)
    ]
    together = log_likelihoods(model, texts)
    for text, scores in zip(texts, together, strict=True):
        assert log_likelihoods(model, [text])[0] == pytest.approx(scores, abs=1e-5)


def test_what_endings_share_is_read_once() -> None:
    text = Endings((1, 2), ((3, 4, 5), (3, 4, 6, 7), (3, 4, 5)))
    assert text.shared == (1, 2, 3, 4)
    assert text.tails == [(), (6,), ()]
    assert Endings((1, 2), ((3,), (4,))).tails == []


def test_spaces_at_the_end_of_a_text_belong_to_what_follows(tokenizer: Tokenizer) -> None:
    apart = encode_endings(tokenizer, "The answer is", [" A", " B"], bos=BOS)
    assert encode_endings(tokenizer, "The answer is ", ["A", "B"], bos=BOS) == apart
    assert apart.context[0] == BOS
    for ending, text in zip(apart.continuations, ("A", "B"), strict=True):
        whole = tokenizer.encode(f"The answer is {text}", add_special_tokens=False).ids
        assert [*apart.context[1:], *ending] == whole
