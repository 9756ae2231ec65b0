"""Questions as data: what is read, what is counted, what lands on which side."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.corpus.document import Tally
from vocabgraft.errors import DataError
from vocabgraft.evaluation.questions import (
    LETTERS,
    Question,
    answer_text,
    by_lot,
    data_path,
    prompt,
    read_instructions,
    read_questions,
    split_questions,
)

ROW = {"question": "무엇을 줄입니까?", "options": ["소금", "물", "잠"], "answer": 2}


def write(path: Path, *rows: object) -> str:
    lines = [r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode() for r in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def read(path: Path, *rows: object) -> tuple[list[Question], dict[str, int]]:
    """Questions and drops, beside one row that is always right."""
    tally = Tally()
    found = read_questions([write(path / "q.jsonl", ROW, *rows)], tally)
    tally.check()
    return found[1:], dict(tally.dropped)


# -- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [2, "B", "b", " B "])
def test_an_answer_is_a_letter_or_a_number_from_one(tmp_path: Path, answer: object) -> None:
    (found,), dropped = read(tmp_path, {**ROW, "answer": answer})
    assert (found.answer, found.options[found.answer]) == (1, "물")
    assert dropped == {}


@pytest.mark.parametrize("answer", [0, 4, -1, "D", "", " ", "AB", "Z", "ㄱ", "1", 1.0, True, None, [1], {"a": 1}])
def test_any_other_answer_is_a_bad_key_and_counted(tmp_path: Path, answer: object) -> None:
    found, dropped = read(tmp_path, {**ROW, "answer": answer})
    assert found == []
    assert dropped == {"answer key outside the options": 1}


def test_options_may_stand_under_their_letters_as_in_kormedmcqa(tmp_path: Path) -> None:
    row = {"question": "?", "A": "가", "B": "나", "C": "다", "D": "라", "E": "마", "answer": 5}
    (found,), _ = read(tmp_path, row)
    assert (found.options, found.answer) == (("가", "나", "다", "라", "마"), 4)


@pytest.mark.parametrize("last", [None, ""])
def test_a_letter_without_text_is_no_option(tmp_path: Path, last: object) -> None:
    (found,), _ = read(tmp_path, {"question": "?", "A": "가", "B": "나", "C": last, "answer": "B"})
    assert found.options == ("가", "나")
    found, dropped = read(tmp_path, {"question": "?", "A": "가", "B": "나", "C": last, "D": "라", "answer": "D"})
    assert (found, dropped) == ([], {"answer key outside the options": 1})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**ROW, "question": ""}, "no question"),
        ({**ROW, "question": None}, "no question"),
        ({"options": ["a", "b"], "answer": 1}, "no question"),
        ({**ROW, "options": []}, "fewer than two different options"),
        ({**ROW, "options": ["a"]}, "fewer than two different options"),
        ({**ROW, "options": ["a", "a"]}, "fewer than two different options"),
        ({**ROW, "options": "ab"}, "fewer than two different options"),
        ({"question": "?", "answer": 1}, "fewer than two different options"),
        ({**ROW, "options": [str(i) for i in range(11)]}, "more than 10 options"),
        (b"{", "invalid JSON"),
        (b"[1]", "invalid JSON"),
        (b'"text"', "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
        (b'{"question": "\xff"}', "invalid UTF-8"),
        (b'{"question": "\\ud800", "options": ["a", "b"], "answer": 1}', "lone surrogate"),
    ],
)
def test_a_row_that_cannot_be_used_is_counted_by_reason(tmp_path: Path, row: object, reason: str) -> None:
    assert read(tmp_path, row) == ([], {reason: 1})


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    tally = Tally()
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n\r\n  \n" + json.dumps(ROW).encode())
    assert len(read_questions([str(path)], tally)) == 2
    assert (tally.read, tally.dropped.total()) == (2, 0)


def test_a_file_without_a_usable_question_says_why(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", {**ROW, "answer": 9}, b"{")
    with pytest.raises(DataError, match=r"no usable question in .*'answer key outside the options': 1"):
        read_questions([path], Tally())


def test_a_missing_file_names_similar_ones(tmp_path: Path) -> None:
    write(tmp_path / "fragen.jsonl", ROW)
    with pytest.raises(DataError, match=r"frage\.jsonl does not exist; similar names there: fragen\.jsonl"):
        data_path(str(tmp_path / "frage.jsonl"))
    with pytest.raises(DataError, match="does not exist"):
        data_path("samples:nothing")


@pytest.mark.parametrize("name", ["samples:questions_ko", "samples:questions_en"])
def test_the_shipped_questions_are_all_usable_and_all_different(name: str) -> None:
    tally = Tally()
    questions = read_questions([name], tally)
    assert not tally.dropped
    assert len({q.question for q in questions}) == len({q.id for q in questions}) == len(questions)
    most = max(sum(q.answer == i for q in questions) for i in range(5))
    assert most < 0.4 * len(questions), "one letter is right too often"


def test_instructions_are_read_and_empty_ones_counted(tmp_path: Path) -> None:
    good = {"instruction": "왜?", "response": "그래서."}
    bad = [{"instruction": "왜?"}, {"instruction": "", "response": "a"}, {"instruction": 1, "response": "a"}]
    tally = Tally()
    found = read_instructions([write(tmp_path / "i.jsonl", good, *bad)], tally)
    assert [(i.instruction, i.response) for i in found] == [("왜?", "그래서.")]
    assert dict(tally.dropped) == {"no instruction or response": 3}
    assert read_instructions(["samples:instructions_ko"], Tally())


# -- splitting ------------------------------------------------------------------------------------------------------

QUESTION = st.builds(lambda i, text: Question(i, text, ("a", "b"), 0), st.text(max_size=3), st.text(max_size=4))
QUESTIONS = st.lists(QUESTION, max_size=30)


@given(questions=QUESTIONS, share=st.floats(0, 1))
def test_every_question_lands_on_exactly_one_side_and_a_text_never_on_both(
    questions: list[Question], share: float
) -> None:
    train, test = split_questions(questions, share)
    assert sorted([*train, *test], key=repr) == sorted(questions, key=repr)
    assert {q.question for q in train} & {q.question for q in test} == set()


@given(questions=QUESTIONS, share=st.floats(0, 1))
def test_a_side_depends_on_the_text_alone(questions: list[Question], share: float) -> None:
    train, _ = split_questions(questions, share)
    for one in questions:
        assert (split_questions([one], share)[0] == [one]) == (one in train)


def test_the_split_of_the_shipped_questions_stays_what_it_was() -> None:
    train, test = split_questions(read_questions(["samples:questions_ko"], Tally()), 0.5)
    assert (len(train), len(test)) == (41, 39)
    assert [q.id for q in test[:5]] == ["ko-q-003", "ko-q-005", "ko-q-006", "ko-q-009", "ko-q-010"]


def test_a_larger_share_only_adds_to_the_test_side() -> None:
    questions = read_questions(["samples:questions_ko"], Tally())
    sides = [{q.id for q in split_questions(questions, share)[1]} for share in (0.0, 0.2, 0.5, 0.8, 1.0)]
    assert sides[0] == set()
    assert all(a <= b for a, b in pairwise(sides))
    assert len(sides[-1]) == len(questions)


# -- asking ---------------------------------------------------------------------------------------------------------


def test_the_question_and_its_answer_read_so() -> None:
    question = Question("1", "무엇을 줄입니까?", ("소금", "물"), 1, "물을 마시면 된다.")
    assert prompt(question) == "무엇을 줄입니까?\nA. 소금\nB. 물"
    assert answer_text(question) == "B. 물\n물을 마시면 된다."
    assert answer_text(Question("1", "?", ("소금", "물"), 0)) == "A. 소금"


@given(n=st.integers(2, 10), data=st.data())
def test_the_answer_repeats_a_line_of_the_prompt(n: int, data: st.DataObject) -> None:
    question = Question("1", "?", tuple(f"보기 {i}" for i in range(n)), data.draw(st.integers(0, n - 1)))
    assert answer_text(question) in prompt(question).split("\n")
    assert answer_text(question)[0] == LETTERS[question.answer]


def test_answers_by_lot_are_the_same_each_time_and_teach_nothing() -> None:
    questions = [Question(str(n), f"Question {n}?", ("a", "b", "c", "d"), 0, "because") for n in range(400)]
    drawn = [by_lot(q) for q in questions]
    assert drawn == [by_lot(q) for q in questions]
    assert {q.reason for q in drawn} == {""}
    assert 0.15 < sum(q.answer == 0 for q in drawn) / 400 < 0.35
