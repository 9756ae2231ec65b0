"""Duplicates and leaks."""

import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vocabgraft.corpus.dedup import ExactDuplicates, LeakIndex
from vocabgraft.errors import DataError

QUESTION = "55세 남자가 갑자기 시작된 가슴 통증으로 응급실에 왔다. 가장 먼저 시행할 검사는?"
FILLER = "병원은 환자의 권리를 존중하고 안전한 진료를 제공하기 위하여 여러 가지 절차를 마련해 두고 있다. "


def test_the_first_of_equal_texts_is_new():
    duplicates = ExactDuplicates()
    assert [duplicates.seen(t) for t in ("가 나", "다", "가 나")] == [False, False, True]
    assert len(duplicates) == 2


@pytest.mark.parametrize("other", ["가나 ABC é", "가\n나\tabc  é", unicodedata.normalize("NFD", "가 나 abc é")])
def test_spaces_capitals_and_composition_do_not_make_a_text_new(other):
    duplicates = ExactDuplicates()
    duplicates.seen("가 나 abc é")
    assert duplicates.seen(other)


def test_a_question_inside_a_long_text_is_found():
    index = LeakIndex(["전혀 다른 내용을 묻는 긴 질문이 여기 있다", QUESTION])
    assert index.leaks(FILLER * 50 + QUESTION + FILLER * 50) == "1"
    assert index.leaks(FILLER * 50) is None


def test_a_question_is_found_under_its_own_id_and_in_other_spacing():
    index = LeakIndex([QUESTION], ids=["nurse-2022-17"])
    assert index.leaks(FILLER + unicodedata.normalize("NFD", QUESTION.replace(" ", "\n"))) == "nurse-2022-17"


def test_half_a_question_leaks_and_a_third_does_not():
    index = LeakIndex([QUESTION])
    whole = QUESTION.replace(" ", "")
    assert index.leaks(whole[: len(whole) * 7 // 10]) == "0"
    assert index.leaks(whole[: len(whole) // 3]) is None
    assert index.leaks(whole[: len(whole) // 2], min_share=0.1) == "0"


def test_a_short_item_must_be_contained_whole():
    index = LeakIndex(["폐렴의 원인", ""])
    assert index.leaks("다음 중 폐렴의원인은?") == "0"
    assert index.leaks("폐렴의 증상") is None


def test_an_index_of_nothing_and_a_text_of_nothing_leak_nothing():
    assert LeakIndex([]).leaks(QUESTION) is None
    assert LeakIndex([""]).leaks("") is None
    assert LeakIndex([QUESTION]).leaks("") is None


def brute_force(items, text, n, share):
    """The definition, word for word."""
    for i, item in enumerate(items):
        grams = {item[k : k + n] for k in range(len(item) - n + 1)}
        if (grams and sum(g in text for g in grams) >= share * len(grams)) or (0 < len(item) < n and item in text):
            return str(i)
    return None


few_letters = st.text("ab가", max_size=40)


@given(st.lists(few_letters, max_size=6), few_letters, st.integers(1, 13), st.sampled_from([0.1, 0.5, 1.0]))
@example(["aaaa"], "aaa", 3, 1.0)
def test_the_index_agrees_with_the_definition(items, text, n, share):
    assert LeakIndex(items, n).leaks(text, share) == brute_force(items, text, n, share)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(DataError, match="min_share"):
        LeakIndex(["a"]).leaks("a", share)


def test_ids_must_match_the_items_and_n_must_be_positive():
    with pytest.raises(DataError, match="2 ids were given for 1 items"):
        LeakIndex(["a"], ids=["x", "y"])
    with pytest.raises(DataError, match="at least 1"):
        LeakIndex(["a"], 0)


def test_a_megabyte_without_leaks_takes_well_under_a_second():
    index = LeakIndex([f"{i} {QUESTION[i % 20 :]} {i * 7919}" for i in range(500)])
    text = "".join(f"{FILLER}{i}" for i in range(8000))
    start = time.process_time()
    assert index.leaks(text) is None
    assert time.process_time() - start < 1  # 5 MB/s would be 0.2 s for this 1.1 MB; machines differ
