"""Cleaning, dropping and cutting texts."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.corpus.clean import clean_text, reason_to_drop, split_long
from vocabgraft.errors import DataError

KOREAN = "환자는 사흘 전부터 열이 나고 기침을 하여 병원에 왔다. 가슴 사진에서 폐렴이 보였다."
any_text = st.text(st.characters() | st.sampled_from(" \t\n\r\0\u00a0\u0301\ufeff가각ᄀ\u1161."))


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("가\r\n나\r다", "가\n나\n다"),
        ("a \t\u00a0\u3000 b", "a b"),
        ("a\n\n\n\n\nb", "a\n\nb"),
        ("a\n \t \n\n b", "a\n\nb"),
        ("  a  \n", "a"),
        ("a\0b\x07c\x9fd", "abcd"),
        ("\ufeff가\ufeff", "가"),
        ("page\x0cpage\u2028line", "page\npage\nline"),
        ("\u1112\u1161\u11ab", "한"),
        ("e\0\u0301", "é"),
        ("\ud800a", "a"),
        ("👩\u200d⚕️", "👩\u200d⚕️"),
    ],
)
def test_cleaning_an_example(dirty, clean):
    assert clean_text(dirty) == clean


@given(any_text)
def test_cleaning_twice_is_cleaning_once(text):
    once = clean_text(text)
    assert once == clean_text(once)


@given(any_text)
def test_a_clean_text_is_nfc_and_encodable_and_has_no_control_characters(text):
    clean = clean_text(text)
    clean.encode()
    assert unicodedata.is_normalized("NFC", clean)
    assert {c for c in clean if unicodedata.category(c) == "Cc"} <= {"\n"}
    assert "  " not in clean
    assert "\n\n\n" not in clean


def drop(text, *, script="Hangul", min_script_share=0.5, min_chars=10, max_chars=1000):
    return reason_to_drop(
        text, script=script, min_script_share=min_script_share, min_chars=min_chars, max_chars=max_chars
    )


def test_a_plain_text_is_kept():
    assert drop(KOREAN) is None


def test_a_single_line_does_not_repeat_itself():
    assert drop("하나뿐인 줄은 되풀이가 아니다") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("짧다", "too short"),
        ("가" * 1001, "too long"),
        ("This is a text in another language.", "wrong script"),
        ("1234567890 1234567890", "wrong script"),
        (KOREAN + "\n이 줄은 되풀이된다." * 10, "repetitive"),
        (KOREAN + " 아주 좋은 영화 정말 추천" * 8, "repetitive"),
        ("싫다 " * 30, "repetitive"),
    ],
)
def test_a_poor_text_is_dropped_for_its_reason(text, reason):
    assert drop(text) == reason


def test_no_script_means_any_script():
    assert drop("This is a text in another language.", script=None) is None


def test_words_that_are_frequent_but_scattered_are_no_repetition():
    words = [f"{noun}{i}" for i in range(40) for noun in ("병원", "환자")]
    scattered = " ".join(f"그리고 {word} 그러나" for word in words)
    assert drop(scattered, max_chars=10_000) is None


@given(any_text, st.integers(1, 30))
def test_cutting_loses_nothing_and_keeps_to_the_limit(text, limit):
    pieces = split_long(text, limit)
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= limit for piece in pieces)


@pytest.mark.parametrize(
    ("text", "limit", "first"),
    [
        ("첫째 문단이다. 길다.\n\n둘째 문단이다. 역시 길다.", 20, "첫째 문단이다. 길다.\n\n"),
        ("첫째 줄이다. 길다.\n둘째 줄이다. 역시 길다.", 20, "첫째 줄이다. 길다.\n"),
        ("첫째 문장이다. 둘째 문장이다. 셋째 문장이다.", 20, "첫째 문장이다. 둘째 문장이다. "),
        ("문장 끝이 없는 글은 낱말에서 자른다", 12, "문장 끝이 없는 글은 "),
        ("가나다라마바사아자차카타파하", 6, "가나다라마바"),
        ("e\u0301e\u0301e\u0301e\u0301", 5, "e\u0301e\u0301"),
    ],
)
def test_cuts_fall_where_a_reader_would_pause(text, limit, first):
    assert split_long(text, limit)[0] == first


def test_a_text_within_the_limit_is_one_piece_and_an_empty_one_none():
    assert split_long("가나", 2) == ["가나"]
    assert split_long("", 2) == []


def test_pieces_of_no_characters_are_refused():
    with pytest.raises(DataError, match="at least 1"):
        split_long("가", 0)
