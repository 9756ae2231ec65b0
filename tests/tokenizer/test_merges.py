"""Merges: the same as the trainer of `tokenizers`, and what it cannot do."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from vocabgraft.tokenizer.merges import Merge, learn_merges

words = st.dictionaries(st.text("abcd", min_size=1, max_size=9), st.integers(1, 5), min_size=1, max_size=25)


def learn(counts: dict[str, int], size: int, min_count: int = 2, **more) -> list[Merge]:
    ids = np.array([ord(c) - ord("a") for w in counts for c in w], np.int64)
    lengths = np.array([len(w) for w in counts], np.int64)
    return learn_merges(
        ids, lengths, np.array(list(counts.values()), np.int64), first_new=4, size=size, min_count=min_count, **more
    )


def spelt(merges: list[Merge]) -> list[tuple[str, str]]:
    names = dict(enumerate("abcd"))
    for m in merges:
        names[m.new] = names[m.left] + names[m.right]
    return [(names[m.left], names[m.right]) for m in merges]


def peer(counts: dict[str, int], size: int, min_count: int = 2) -> list[tuple[str, str]]:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=4 + size, min_frequency=min_count, initial_alphabet=list("abcd"), show_progress=False
    )
    tok.train_from_iterator([f"{w} " * n for w, n in counts.items()], trainer)
    return [tuple(m) for m in json.loads(tok.to_str())["model"]["merges"]]


@settings(max_examples=300, deadline=None)
@given(words, st.integers(1, 12))
def test_the_merges_of_tokenizers_in_its_order(counts, size):
    assert spelt(learn(counts, size)) == peer(counts, size)


def test_overlapping_pairs_merge_from_the_left():
    assert spelt(learn({"aaaaa": 3}, 3)) == peer({"aaaaa": 3}, 3)
    assert learn({"aaa": 5}, 1)[0].count == peer_count("aaa", 5)


def peer_count(word: str, n: int) -> int:
    return (len(word) - 1) * n  # overlapping pairs are all counted, as in tokenizers


@given(words, st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_a_smaller_size_gives_a_prefix(counts, size):
    assert learn(counts, 12)[:size] == learn(counts, size)


@given(words, st.integers(2, 6))
@settings(max_examples=100, deadline=None)
def test_no_merge_below_the_floor(counts, floor):
    assert all(m.count >= floor for m in learn(counts, 20, min_count=floor))


@given(words, st.sampled_from("abcd"))
@settings(max_examples=100, deadline=None)
def test_a_refused_letter_never_gets_in(counts, letter):
    refused = ord(letter) - ord("a")
    found = learn(counts, 12, allowed=lambda left, right, new: refused not in (left, right))
    assert all(letter not in left + right for left, right in spelt(found))
    assert [m.new for m in found] == list(range(4, 4 + len(found)))


def test_counts_stand_for_repetition():
    once = learn({"abab": 1, "abc": 1}, 5, min_count=1)
    many = learn({"abab": 7, "abc": 7}, 5, min_count=1)
    assert [(m.left, m.right) for m in once] == [(m.left, m.right) for m in many]
    assert [m.count * 7 for m in once] == [m.count for m in many]


def test_nothing_to_learn_from():
    empty = np.zeros(0, np.int64)
    assert learn_merges(empty, empty, empty, first_new=4, size=3, min_count=1) == []
    assert learn({"a": 9, "b": 9}, 3) == []
