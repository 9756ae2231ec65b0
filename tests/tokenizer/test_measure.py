"""Measures of a tokenizer: nothing is lost on the way, and a changed file is read again."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.measure import changed_ids, fertility, load_tokenizer, moved_tokens, not_restored, together


@given(st.lists(st.text(max_size=5), max_size=60), st.integers(1, 20), st.integers(1, 10))
def test_no_text_is_lost_when_texts_are_put_together(texts, letters, most) -> None:
    runs = list(together(texts, letters, most))
    assert [t for some in runs for t in some] == texts
    assert all(len(some) <= most and sum(map(len, some[:-1])) < letters for some in runs)


def test_fertility_counts_words_tokens_and_bytes(tied_world) -> None:
    found = fertility(load_tokenizer(tied_world.base), ["혈압 약", "a  b c"])
    assert (found.words, found.bytes) == (5, 16)
    assert found.tokens_per_word == found.tokens / 5


def test_changed_ids_are_counted_and_a_longer_side_too(tied_world) -> None:
    base, expanded = load_tokenizer(tied_world.base), load_tokenizer(tied_world.tokenizer)
    assert changed_ids(base, base, list(tied_world.korean[:3])) == 0
    assert changed_ids(base, expanded, list(tied_world.korean[:3])) > 0
    assert changed_ids(base, expanded, list(tied_world.english[:3])) == 0


def test_texts_come_back(tied_world) -> None:
    assert not_restored(load_tokenizer(tied_world.tokenizer), [*tied_world.korean[:5], *tied_world.english[:5]]) == []


def test_a_file_that_changes_is_read_again(tied_world, tmp_path) -> None:
    shutil.copyfile(tied_world.base / "tokenizer.json", tmp_path / "tokenizer.json")
    before = load_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path) is before
    shutil.copyfile(tied_world.tokenizer / "tokenizer.json", tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path).get_vocab() != before.get_vocab()


@pytest.mark.parametrize(("text", "said"), [(None, "missing"), ("{}", "not a tokenizer")])
def test_what_is_no_tokenizer_is_said(tmp_path, text, said) -> None:
    if text is not None:
        (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(TokenizerError, match=said):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("family", "place"), [("gemma", "slots"), ("gemma", "append"), ("smollm2", "append")])
def test_base_tokens_that_moved_or_are_gone_are_named(make_expanded, family, place) -> None:
    found = make_expanded(family, place)
    base, expanded = load_tokenizer(found.base), load_tokenizer(found.out)
    assert moved_tokens(base, expanded, found.expansion.ids) == []
    assert moved_tokens(expanded, base, []) == sorted(
        t for t, i in expanded.get_vocab().items() if i in set(found.expansion.ids)
    )
