"""Written answers: what chooses an option, what chooses none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.evaluation.extract import extract
from vocabgraft.evaluation.lm_eval import extract_v2, extract_v3, prompt
from vocabgraft.evaluation.questions import LETTERS, Question

OPTIONS = ("고혈압", "2형 당뇨병", "B형 간염", "천식", "비타민 B12 결핍")
ROWS = [json.loads(line) for line in Path(__file__).with_name("answers.jsonl").read_text("utf-8").splitlines()]
SAID = [
    "{}",
    "{}번",
    "({})",
    "정답: {}",
    "정답은 {}입니다.",
    "답은 {}번이에요",
    "**{}**",
    "\\boxed{{{}}}",
    "The answer is {}.",
    "A patient with fever and a rash most likely has measles.\nAnswer: {}",
    "비타민 B가 부족한 A씨는 2형 당뇨병도 있다. 따라서 {}가 정답이다.",
    "<think>정답은 A인가? 아니면 B?</think>{}",
    "처음에는 정답은 A라고 생각했으나, 최종 정답은 {}",
]


def test_answers_written_for_it_are_read() -> None:
    choosing = [row for row in ROWS if row["answer"] is not None]
    right = sum(extract(row["text"], row["options"]) == row["answer"] for row in choosing)
    assert len(choosing) >= 400
    assert right / len(choosing) >= 0.995


def test_a_text_that_chooses_nothing_gives_no_option() -> None:
    refusals = [row for row in ROWS if row["answer"] is None]
    assert len(refusals) >= 100
    assert [row["text"] for row in refusals if extract(row["text"], row["options"]) is not None] == []


@given(
    said=st.sampled_from(SAID), option=st.integers(0, 4), form=st.sampled_from(["letter", "number", "wide", "circle"])
)
def test_every_sign_of_an_option_is_read_in_every_phrase(said: str, option: int, form: str) -> None:
    sign = {
        "letter": LETTERS[option],
        "number": str(option + 1),
        "wide": chr(ord("Ａ") + option),
        "circle": "①②③④⑤"[option],
    }[form]
    assert extract(said.format(sign), OPTIONS) == option


@given(text=st.text(max_size=200), count=st.integers(2, 10))
def test_any_text_gives_an_option_that_is_there_or_none(text: str, count: int) -> None:
    found = extract(text, [f"선택 {n}" for n in range(count)])
    assert found is None or 0 <= found < count


def test_an_option_is_told_by_its_text_too_and_the_longer_text_wins() -> None:
    options = ("당뇨병", "당뇨병 2형", "천식")
    assert extract("천식", options) == 2
    assert extract("정답은 당뇨병 2형입니다.", options) == 1
    assert extract("정답은 당뇨병입니다.", options) == 0


def test_options_are_compared_in_one_form_and_an_empty_one_is_never_named() -> None:
    assert extract("따라서 Ⅳ형 과민반응입니다.", ("Ⅰ형 과민반응", "Ⅳ형 과민반응", "")) == 1
    assert extract("", ("", "천식")) is None


def test_lm_evals_ways_read_as_it_does() -> None:
    question = Question("1", " 무엇인가? ", ("가", "나", "다", "라", "마"), 1)
    assert prompt(question) == "무엇인가?\nA. 가\nB. 나\nC. 다\nD. 라\nE. 마\n정답："
    assert [extract_v2(t) for t in ("B", " b.", "정답: B")] == [1, 1, None]
    # What its patterns take, right or wrong: the article of an English sentence, no letter before a particle.
    assert [extract_v3(t) for t in ("정답: B", "The answer is B because a patient…", "답은 B입니다")] == [1, 0, None]


@pytest.mark.parametrize("text", ["", "   ", "<think>정답은 B", "정답은 F입니다", "A와 B 모두 정답입니다"])
def test_what_is_no_answer_is_none(text: str) -> None:
    assert extract(text, OPTIONS) is None
