"""Strings to try tokenizers on, the script of pieces, runs of tokens."""

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.corpus.script import script_pattern
from vocabgraft.tokenizer.compare import script_of
from vocabgraft.tokenizer.fuzz import CODE_POINTS, FORMS, all_code_points, code_points, fuzz_texts, letters_of
from vocabgraft.tokenizer.sweep import blocks_without, is_coarser

HANGUL = script_pattern("Hangul")


def test_every_code_point_but_surrogates_is_there_once():
    points = list(all_code_points())
    assert len(points) == len(set(points)) == CODE_POINTS == 1_112_064
    assert not any(unicodedata.category(c) == "Cs" for c in points)


def test_a_choice_of_code_points_keeps_ascii_and_its_seed():
    chosen = code_points(500, seed=3)
    assert len(chosen) == len(set(chosen)) == 500
    assert "".join(chosen[:128]).isascii()
    assert chosen == code_points(500, seed=3) != code_points(500, seed=4)


def test_mixtures_are_the_same_for_the_same_seed_and_hold_what_they_promise():
    letters = "가나다"
    texts = fuzz_texts(3000, 1, letters=letters, pieces=["혈압", " 환자"], specials=["<bos>"])
    assert texts == fuzz_texts(3000, 1, letters=letters, pieces=["혈압", " 환자"], specials=["<bos>"])
    assert texts != fuzz_texts(3000, 2, letters=letters, pieces=["혈압", " 환자"], specials=["<bos>"])
    assert sum("<bos>" in t for t in texts) == 300
    for wanted in ("혈압", "\t", "\u3000", "\u200b", "\u00a0", "👩‍⚕️", " " * 32, "\u1100", "ㄱ"):
        assert any(wanted in t for t in texts), wanted
    for text in texts:
        text.encode()


def test_mixtures_for_pieces_without_letters_can_be_made():
    assert len(fuzz_texts(50, 1, letters="", pieces=["--"])) == 50


def test_forms_hold_what_they_are_called():
    assert FORMS["decomposed (NFD)"] != unicodedata.normalize("NFC", FORMS["decomposed (NFD)"])
    assert letters_of(HANGUL).startswith("ᄀ")


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        (["혈압", "환자", "the"], "Hangul"),
        (["the", " and", "혈"], "Latin"),
        (["患者", "する", "薬を", "血"], "Japanese"),
        (["患者", "血壓"], "Han"),
        (["--", "12"], None),
        ([], None),
    ],
)
def test_the_script_is_that_of_most_pieces(pieces, wanted):
    assert script_of(pieces) == wanted


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.data())
def test_joined_tokens_are_coarser_and_shifted_ones_are_not(lengths, data):
    """Token i is i bytes long."""
    sizes = (np.arange(100), np.arange(100))
    cuts = data.draw(st.lists(st.integers(1, len(lengths)), unique=True).map(sorted))
    bounds = [0, *(c for c in cuts if c < len(lengths)), len(lengths)]
    joined = [sum(lengths[a:b]) for a, b in pairwise(bounds)]
    assert is_coarser(sizes, lengths, joined)
    assert not is_coarser(sizes, lengths, [*joined, 1])


def test_a_token_that_ends_inside_a_base_token_is_no_run():
    assert not is_coarser((np.arange(9), np.arange(9)), [2, 2], [1, 3])


def test_lines_without_the_script_are_joined_to_blocks():
    assert blocks_without("a\nb\n혈압\nc\n압\n", HANGUL) == ["a\nb\n", "c\n"]
    assert blocks_without("a\nb\n", HANGUL) == []
