"""Benchmarks by name: rows of every kind read alike, and what cannot be had says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vocabgraft.corpus.document import Tally
from vocabgraft.errors import DataError
from vocabgraft.evaluation import benchmarks
from vocabgraft.evaluation.benchmarks import catalogue, named
from vocabgraft.evaluation.questions import Question, clusters_of, data_path, read_questions

ROWS: dict[str, dict[str, Any]] = {
    "kormedmcqa": {
        "subject": "doctor", "year": 2020, "period": 1, "question": "무엇이 옳은가?", "A": "하나", "B": "둘",
        "C": "셋", "D": "넷", "E": "다섯", "answer": 2, "cot": "",
    },
    "kormedlawqa": {"question": "무엇이 옳은가?", "A": "하나", "B": "둘", "C": "셋", "answer": "B"},
    "medqa": {
        "question": "Which?", "answer": "two", "options": {"A": "one", "B": "two", "C": "three", "D": "four"},
        "meta_info": "step1", "answer_idx": "B",
    },
    "medmcqa": {
        "id": "x", "question": "Which?", "opa": "one", "opb": "two", "opc": "three", "opd": "four", "cop": 1,
        "subject_name": "Anatomy",
    },
    "pubmedqa": {
        "id": "7", "subject_name": None,
        "data": {
            "Question": "Does it help?", "Context": ["We tried.", "It did."], "Correct Option": "B",
            "Options": {"A": "yes", "B": "no", "C": "maybe"},
        },
    },
    "mmlu-medical": {"question": "Which?", "choices": ["one", "two", "three"], "answer": 1, "subject": "anatomy"},
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A hub that has the rows above; what it is asked for."""
    asked: list[Any] = []

    def rows(source: Any) -> Any:
        asked.append(source)
        name = next(n for n, b in catalogue().items() if b.dataset == source.dataset)
        return iter([ROWS[name]])

    monkeypatch.setattr(benchmarks, "open_hub", rows)
    return asked


@pytest.mark.parametrize("name", ROWS)
def test_the_hubs_rows_are_read_as_questions(hub: list[Any], name: str) -> None:
    tally = Tally()
    found = read_questions([f"benchmark:{name}@0123abc"], tally)
    assert tally.dropped == {}
    assert {q.answer for q in found} == {1}
    assert len(found[0].options) >= 3
    assert {h.revision for h in hub} == {"0123abc"}
    assert tuple(h.config for h in hub) == (catalogue()[name].configs or (None,))
    assert len({q.id for q in found}) == len(found)


def test_an_abstract_stands_before_its_question(hub: list[Any]) -> None:
    (found,) = read_questions(["benchmark:pubmedqa@main"], Tally())
    assert found.question == "We tried.\nIt did.\nDoes it help?"
    assert found.options == ("yes", "no", "maybe")


def test_one_part_of_a_benchmark_can_be_named(hub: list[Any]) -> None:
    (found,) = read_questions(["benchmark:kormedmcqa/nurse@main"], Tally())
    assert [h.config for h in hub] == ["nurse"]
    assert (found.id, found.subject, found.cluster) == ("kormedmcqa-nurse-1", "doctor", "doctor-2020-1")


def test_where_no_commit_is_named_the_pinned_one_is_read(hub: list[Any]) -> None:
    pinned = [name for name in ROWS if catalogue()[name].revision]
    read_questions([f"benchmark:{name}" for name in pinned], Tally())
    assert {h.dataset: h.revision for h in hub} == {catalogue()[n].dataset: catalogue()[n].revision for n in pinned}
    assert set(ROWS) - set(pinned) == {"kormedlawqa"}


@pytest.mark.parametrize("name", ROWS)
def test_a_copy_at_hand_is_read_in_the_hubs_form(tmp_path: Path, name: str) -> None:
    path = tmp_path / "copy.jsonl"
    path.write_text(json.dumps(ROWS[name]) + "\n", "utf-8")
    (found,) = read_questions([f"benchmark:{name}={path}"], Tally())
    assert found.answer == 1
    assert data_path(f"benchmark:{name}={path}") == path


def test_a_copy_in_our_form_is_read_as_it_is(tmp_path: Path) -> None:
    row = {"id": "k", "question": "무엇?", "options": {"A": "하나", "B": "둘"}, "answer": "B", "subject": "nurse"}
    row |= {"year": "2021", "period": "2"}
    path = tmp_path / "copy.jsonl"
    path.write_text(json.dumps(row) + "\n", "utf-8")
    (found,) = read_questions([f"benchmark:kormedmcqa={path}"], Tally())
    assert found == Question("k", "무엇?", ("하나", "둘"), 1, subject="nurse", cluster="nurse-2021-2", set="kormedmcqa")
    assert clusters_of([found]) == ["nurse-2021-2"]


def test_rows_that_read_differently_are_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "copy.jsonl"
    good = ROWS["medmcqa"]
    path.write_text("\n".join(json.dumps(r) for r in (good, good | {"cop": 9}, {"frage": "?"})), "utf-8")
    tally = Tally()
    assert len(read_questions([f"benchmark:medmcqa={path}"], tally)) == 1
    assert tally.dropped == {"answer key outside the options": 1, "no question": 1}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("benchmark:kormedlawqa", "which commit"),
        ("benchmark:kormedmqca@main", "did you mean 'kormedmcqa'"),
        ("benchmark:kormedmcqa/vet@main", "its parts: doctor, nurse, pharm, dentist"),
        ("benchmark:kbmc@main", "no questions"),
        ("benchmark:", "benchmark:NAME=PATH"),
        ("benchmark:medqa=nowhere.jsonl", "nowhere.jsonl does not exist"),
    ],
)
def test_what_cannot_be_had_says_what_to_do(source: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_questions([source], Tally())
    with pytest.raises(DataError, match=words):
        data_path(source)


def test_the_catalogue_names_terms_and_place_of_each() -> None:
    for name, benchmark in catalogue().items():
        assert benchmark.license, name
        assert benchmark.license_url.startswith("https://"), name
        assert "/" in benchmark.dataset, name
        assert benchmark.language in ("ko", "en"), name
    assert catalogue()["kormedmcqa"].non_commercial
    assert named("benchmark:medqa@abc").benchmark is catalogue()["medqa"]
