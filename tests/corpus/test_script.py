"""Scripts by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.corpus.script import SCRIPTS, script_pattern, share_of_script
from vocabgraft.errors import DataError


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_listed_script_compiles_and_leaves_digits_and_spaces_to_others(name):
    assert script_pattern(name).search("123 ,.") is None


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("Hangul", "한ㄱᄀ", "漢aあ"),
        ("Latin", "aÉß", "한я"),
        ("Japanese", "漢あアー", "한a"),
        ("Cyrillic", "яЁ", "a한"),
    ],
)
def test_a_pattern_matches_one_character_of_its_script(name, inside, outside):
    assert script_pattern(name).findall(inside + outside) == list(inside)


def test_capitals_and_hyphens_in_a_name_do_not_matter():
    assert script_pattern("hangul") == script_pattern("Hangul")
    assert script_pattern("ol-chiki") == script_pattern("Ol_Chiki")


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(DataError, match=r"'Hangeul' is unknown; did you mean 'Hangul'\?"):
        script_pattern("Hangeul")


def test_a_name_like_no_other_is_answered_with_the_list():
    with pytest.raises(DataError, match=r"known are Arabic.*Hangul"):
        script_pattern("zzzz")


def test_the_share_counts_letters_only():
    assert share_of_script("한글 ab 123 !?", "Hangul") == 0.5
    assert share_of_script("123", "Hangul") == 0.0
    assert share_of_script("", "Hangul") == 0.0


@given(st.text(), st.text())
def test_the_share_lies_between_nothing_and_all_and_order_does_not_matter(a, b):
    share = share_of_script(a + b, "Latin")
    assert 0 <= share <= 1
    assert share == share_of_script(b + a, "Latin")
