"""Duplicates."""

import unicodedata

import numpy as np
import pytest

from vocabgraft.corpus.dedup import digests, repeated


def test_of_equal_texts_that_of_the_least_rank_stays_then_the_first():
    found = digests(["가 나", "다", "가 나", "가나"])
    assert repeated(found, np.array([0, 0, 0, 0])).tolist() == [False, False, True, True]
    assert repeated(found, np.array([1, 1, 1, 0])).tolist() == [True, False, True, False]
    assert repeated(digests([]), np.zeros(0, int)).tolist() == []


@pytest.mark.parametrize("other", ["가나 ABC é", "가\n나\tabc  é", unicodedata.normalize("NFD", "가 나 abc é")])
def test_spaces_capitals_and_composition_do_not_make_a_text_new(other):
    found = digests(["가 나 abc é", other])
    assert (found[0] == found[1]).all()
