"""Planted questions are found in every form, and law that an exam quotes is no leak of it."""

from __future__ import annotations

import unicodedata

import pytest

from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.evaluation.leaks import LeakIndex
from vocabgraft.evaluation.questions import Question, read_questions

LAW = (
    "제5조(설명) 의사는 환자에게 수술의 방법과 그 위험을 알기 쉬운 말로 설명하고 서면으로 동의를 받아야 한다. "
    "다만 설명이 늦어져 생명이 위험해질 때에는 그러하지 아니하다. 동의서는 5년 동안 보존한다."
)
QUOTES = Question(
    "law", "환자에게 수술의 방법과 그 위험을 알기 쉬운 말로 설명하고 서면으로 동의를 받아야 하는 사람은?",
    ("의사", "간호사", "원무과장", "보호자"), 0,
)  # fmt: skip
VIGNETTE = Question(
    "case",
    "62세 남자가 사흘 전부터 누런 가래와 열이 있어 병원에 왔다. 가슴 사진에서 오른쪽 아래에 음영이 보인다. 진단은?",
    ("폐렴", "기흉", "폐색전증", "심부전"), 0,
)  # fmt: skip
ENGLISH = Question(
    "en", "Which of the following nerves carries the sense of taste from the front of the tongue?",
    ("The facial nerve", "The vagus nerve", "The optic nerve"), 0,
)  # fmt: skip
YES_OR_NO = Question("yes", "Can bergapten cross the blood-brain barrier?", ("yes", "no"), 0)
TINY = Question("tiny", "뭐?", ("가", "나"), 0)


@pytest.fixture(scope="module")
def index() -> LeakIndex:
    return LeakIndex([QUOTES, VIGNETTE, ENGLISH, TINY, YES_OR_NO])


def found(index: LeakIndex, text: str) -> set[str]:
    return {index.items[leak.item].id for leak in index.find(f"{LAW}\n{text}\n{LAW}")}


def printed(question: Question, options: tuple[str, ...] | None = None) -> str:
    return question.question + "".join(f"\n({n}) {o}" for n, o in enumerate(options or question.options, start=1))


@pytest.mark.parametrize("question", [QUOTES, VIGNETTE, ENGLISH])
@pytest.mark.parametrize(
    "form",
    [
        str,
        lambda t: unicodedata.normalize("NFD", t),
        lambda t: t.replace(" ", ""),
        lambda t: "\u3000".join(t.split(" ")),
        str.upper,
        lambda t: t.replace(".", " !! ").replace("?", ""),
        lambda t: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in t),
    ],
)
def test_a_question_is_found_however_it_is_typed(index: LeakIndex, question: Question, form) -> None:
    assert found(index, form(printed(question))) == {question.id}
    assert found(index, form(printed(question, question.options[::-1]))) == {question.id}


def test_other_particles_make_no_difference(index: LeakIndex) -> None:
    other = (
        "62세 남자는 사흘 전부터 누런 가래와 열은 있어서 병원을 왔다. 가슴 사진에 오른쪽의 아래로 음영은 보인다. 진단은"
    )
    assert found(index, other + "\nA. 심부전은\nB. 기흉이\nC. 폐렴\nD. 폐색전증") == {"case"}


def test_the_question_alone_or_with_its_answer_is_a_leak(index: LeakIndex) -> None:
    assert found(index, f"{VIGNETTE.question}\n정답은 폐렴입니다.") == {"case"}
    assert found(index, f"Q: {ENGLISH.question} Answer: the facial nerve") == {"en"}


def test_a_law_that_an_exam_quotes_is_none(index: LeakIndex) -> None:
    assert found(index, "") == set()


def test_a_text_of_the_same_matter_is_none(index: LeakIndex) -> None:
    text = "폐렴 환자는 누런 가래와 열이 있다. 가슴 사진에서 음영이 보인다. 기흉이나 폐색전증, 심부전과 가려야 한다."
    assert found(index, text) == set()
    assert found(index, "Which of the following is true? The tongue has a nerve for taste.") == set()


def test_half_of_a_short_question_is_what_any_text_of_its_matter_says(index: LeakIndex) -> None:
    assert found(index, "Few drugs cross the blood-brain barrier. No chemotherapy given by mouth does.") == set()
    assert found(index, printed(YES_OR_NO)) == {"yes"}


def test_texts_looked_at_together_are_looked_at_each(index: LeakIndex) -> None:
    question, options = VIGNETTE.question, "\n".join(VIGNETTE.options)
    halves = [question[: len(question) // 2], question[len(question) // 2 :] + options]
    texts = [LAW, printed(VIGNETTE), "", *halves, f"{LAW}{printed(ENGLISH)}", LAW * 40, printed(QUOTES)]
    assert list(index.find_each([])) == []
    assert list(index.find_each(texts)) == [index.find(text) for text in texts]
    assert [[index.items[leak.item].id for leak in each] for each in index.find_each(texts[:3])] == [[], ["case"], []]


def test_what_is_too_short_to_be_looked_for_is_told(index: LeakIndex) -> None:
    assert index.unknown == [3]
    assert found(index, printed(TINY)) == set()


def test_pieces_that_stand_far_apart_are_none(index: LeakIndex) -> None:
    words = printed(VIGNETTE).split()
    assert found(index, f"\n{LAW * 3}\n".join(" ".join(words[i : i + 3]) for i in range(0, len(words), 3))) == set()


def test_a_question_on_the_edge_of_a_block_is_found(index: LeakIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    from vocabgraft.evaluation import leaks

    monkeypatch.setattr(leaks, "_BLOCK", 300)
    monkeypatch.setattr(leaks, "_OVERLAP", 200)
    for start in range(0, 320, 16):
        assert found(index, "다" * start + printed(VIGNETTE)) == {"case"}


def test_an_item_without_a_letter_is_told(index: LeakIndex) -> None:
    assert LeakIndex([Question("none", "?!", ("…", "—"), 0), ENGLISH]).unknown == [0]


@pytest.mark.parametrize("text", ["", " ", "\ud800 고혈압 \x00", "가" * 5, "a" * 100_000])
def test_any_text_can_be_looked_at(index: LeakIndex, text: str) -> None:
    assert index.find(text) == []
    assert LeakIndex([]).find(text) == []


def test_the_samples_of_the_package_do_not_hold_its_questions() -> None:
    items = read_questions(["samples:questions_ko", "samples:questions_en"], Tally())
    index = LeakIndex(items)
    assert not index.unknown
    for source, language in (("samples:korean", "ko"), ("samples:english", "en")):
        for document in read_source(source, language=language, license="", tally=Tally()):
            assert index.find(document.text) == []
    for n, item in enumerate(items):
        assert n in {leak.item for leak in index.find(printed(item))}
