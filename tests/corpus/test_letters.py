"""Texts are compared by their letters in one form: equal runs have equal hashes, and only they."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.corpus.letters import dense, letters, runs


@given(st.text(max_size=60), st.text(max_size=60), st.integers(1, 12))
def test_runs_are_equal_exactly_where_the_letters_are(a: str, b: str, size: int) -> None:
    for one, other in ((a, b), (a, a)):
        left, right = letters(one).whole, letters(other).whole
        spelt = [tuple(left[i : i + size]) for i in range(len(left) - size + 1)]
        against = [tuple(right[i : i + size]) for i in range(len(right) - size + 1)]
        hashed = np.equal.outer(runs(left, size), runs(right, size))
        assert hashed.tolist() == [[x == y for y in against] for x in spelt]


@given(st.text("가각힣국어abcXYZéÜ０１9 .,-", max_size=80))
def test_form_spaces_and_capitals_make_no_difference(text: str) -> None:
    spaced = unicodedata.normalize("NFD", " . ".join(text.upper()))
    assert letters(text).whole.tolist() == letters(spaced).whole.tolist()


@pytest.mark.parametrize(
    ("text", "found"), [("혈압이 높다", True), ("東京", True), ("high blood pressure", False), ("", False)]
)
def test_scripts_that_write_a_syllable_or_a_word_in_a_letter_are_told(text: str, found: bool) -> None:
    assert dense(letters(text).whole) == found
