"""A topic is learnt from examples, told apart from the corpus, and kept in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vocabgraft.corpus.topic import MIN_EXAMPLES, OFF_TOPIC, Topic, learn_topic, load_topic, save_topic, threshold_for
from vocabgraft.errors import DataError

ILLS = ["고혈압", "당뇨병", "폐렴", "위염", "천식", "빈혈"]
THINGS = ["자동차", "축구", "컴퓨터", "영화", "여행", "음악"]


def medical(n: int) -> str:
    return f"{n}번 환자는 {ILLS[n % 6]} 진단을 받고 {ILLS[n % 5]} 약을 먹으며 증상을 의사와 상의한다. 혈압은 {n}이다."


def other(n: int) -> str:
    return f"{n}번 글은 {THINGS[n % 6]} 이야기이다. 친구와 {THINGS[n % 5]} 보러 가서 표를 {n}장 샀고 재미있었다."


@pytest.fixture(scope="module")
def learnt() -> tuple[Topic, dict[str, object]]:
    # One text in 23 of the corpus is on the topic and has no label.
    corpus = [medical(n) if n % 23 == 0 else other(n) for n in range(200, 500)]
    return learn_topic((medical(n) for n in range(120)), corpus, 0.95)


def test_texts_it_never_saw_are_told_apart(learnt) -> None:
    topic, _ = learnt
    assert [topic.reason_to_drop(medical(n)) for n in range(1000, 1050)] == [None] * 50
    assert [topic.reason_to_drop(other(n)) for n in range(1000, 1050)] == [OFF_TOPIC] * 50
    assert topic.reason_to_drop("") in (None, OFF_TOPIC)


def test_a_long_document_is_judged_by_its_mean(learnt) -> None:
    topic, _ = learnt
    assert topic.reason_to_drop("\n".join(medical(n) for n in range(900))) is None
    assert topic.reason_to_drop("\n".join([medical(1), *(other(n) for n in range(900))])) == OFF_TOPIC


def test_what_was_learnt_from_is_told(learnt) -> None:
    topic, figures = learnt
    assert figures["examples"] + figures["examples_held_out"] == 120
    assert 10 <= figures["examples_held_out"] <= 40
    assert figures["corpus"] == 300
    assert figures["recall_held_out"] >= 0.95
    assert figures["threshold"] == round(topic.threshold, 4) <= 0


def test_a_judge_reads_back_the_same(learnt, tmp_path: Path) -> None:
    topic, _ = learnt
    save_topic(tmp_path / "topic.safetensors", topic)
    again = load_topic(tmp_path / "topic.safetensors")
    assert np.array_equal(again.weights, topic.weights)
    assert again.threshold == topic.threshold


def test_the_threshold_is_even_odds_or_what_the_recall_asks_for() -> None:
    held = [str(n) for n in range(-8, 2)]
    assert threshold_for(float, held, 0.5) == -3
    assert threshold_for(float, held, 0.95) == -8
    assert threshold_for(float, ["3", "4"], 0.95) == 0
    assert threshold_for(float, [], 0.95) == 0


def test_too_few_examples_or_no_corpus_are_errors() -> None:
    with pytest.raises(DataError, match=f"49 different texts, at least {MIN_EXAMPLES} are needed"):
        learn_topic([medical(n) for n in range(49)] * 2, [other(1)], 0.95)
    with pytest.raises(DataError, match="there is nothing to select from"):
        learn_topic([medical(n) for n in range(99)], [medical(1)], 0.95)
