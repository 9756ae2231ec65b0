"""Whatever encodes words gives what the tokenizer gives; a fast encoder that does not is left or refused."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer import word_encoder as module
from vocabgraft.tokenizer.measure import encode, load_tokenizer
from vocabgraft.tokenizer.word_encoder import word_encoder

FAMILIES = ("gemma", "llama3", "qwen", "smollm2")


@pytest.fixture
def words(korean, english) -> list[str]:
    return sorted({" " * (n % 2) + w for t in (*korean[:20], *english[:10]) for n, w in enumerate(t.split())})


def flat(rows) -> tuple[list[int], list[int]]:
    return [i for row in rows for i in row], [len(row) for row in rows]


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_ids_and_lengths_are_those_of_each_word(make_base, words, family, installed, monkeypatch) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "gigatoken", None)
    tokenizer = load_tokenizer(make_base(family)[0])
    ids, lengths = word_encoder(tokenizer)(pl.Series(words))
    assert (ids.tolist(), lengths.tolist()) == flat(encode(tokenizer, words))


def other_hands(monkeypatch, tokenizer, wrong: str) -> None:
    """gigatoken, as it would be if it gave no token for one word."""
    import awkward

    def encode_batch(words):
        return awkward.Array(
            [[] if w == wrong else row for w, row in zip(words, encode(tokenizer, words), strict=True)]
        )

    peer = SimpleNamespace(Tokenizer=lambda _: SimpleNamespace(encode_batch=encode_batch))
    monkeypatch.setitem(sys.modules, "gigatoken", peer)


def test_a_fast_encoder_that_is_wrong_at_first_is_left(make_base, words, monkeypatch) -> None:
    pytest.importorskip("awkward")
    tokenizer = load_tokenizer(make_base("llama3")[0])
    other_hands(monkeypatch, tokenizer, words[3])
    ids, _ = word_encoder(tokenizer)(pl.Series(words))
    assert ids.tolist() == flat(encode(tokenizer, words))[0]


def test_a_fast_encoder_that_is_wrong_later_is_refused(make_base, words, monkeypatch) -> None:
    pytest.importorskip("awkward")
    monkeypatch.setattr(module, "_SAMPLE", 1)
    tokenizer = load_tokenizer(make_base("llama3")[0])
    other_hands(monkeypatch, tokenizer, words[-1])
    encoder = word_encoder(tokenizer)
    assert np.array_equal(encoder(pl.Series(words[:10]))[0], flat(encode(tokenizer, words[:10]))[0])
    with pytest.raises(TokenizerError, match="pip uninstall gigatoken"):
        encoder(pl.Series(words[10:]))
