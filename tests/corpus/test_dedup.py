"""Duplicates."""

import unicodedata

import pytest

from vocabgraft.corpus.dedup import ExactDuplicates


def test_the_first_of_equal_texts_is_new():
    duplicates = ExactDuplicates()
    assert [duplicates.seen(t) for t in ("가 나", "다", "가 나")] == [False, False, True]
    assert len(duplicates) == 2


@pytest.mark.parametrize("other", ["가나 ABC é", "가\n나\tabc  é", unicodedata.normalize("NFD", "가 나 abc é")])
def test_spaces_capitals_and_composition_do_not_make_a_text_new(other):
    duplicates = ExactDuplicates()
    duplicates.seen("가 나 abc é")
    assert duplicates.seen(other)
