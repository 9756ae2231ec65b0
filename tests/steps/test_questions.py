"""What is asked was not tuned on, what is tuned on is not asked, and terms are kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from unicodedata import normalize

import pytest

from vocabgraft.corpus.document import Tally
from vocabgraft.errors import DataError
from vocabgraft.evaluation.questions import Question, read_questions, split_questions
from vocabgraft.steps.evaluation import compared
from vocabgraft.steps.instruct import tuning_pairs
from vocabgraft.steps.questions import LEAKED, not_commercial, question_licences, sampled, unseen_questions


def saved(path: Path, questions: Iterable[Question]) -> str:
    rows = ({"question": q.question, "options": q.options, "answer": q.answer + 1} for q in questions)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


def test_evaluation_asks_only_what_tuning_did_not_read(recipe) -> None:
    questions = read_questions(["samples:questions_ko"], Tally())
    tuned, kept = split_questions(questions, recipe().instruct.test_share)
    found = unseen_questions(recipe(), ["samples:questions_ko"], Tally())
    assert found == kept
    assert {q.question for q in found} & {q.question for q in tuned} == set()


def test_a_tuned_question_is_known_again_in_another_file(recipe, tmp_path: Path) -> None:
    questions = read_questions(["samples:questions_ko"], Tally())
    tuned, kept = split_questions(questions, recipe().instruct.test_share)
    rows = [{"question": q.question, "options": q.options, "answer": q.answer + 1} for q in (tuned[0], kept[0])]
    rows.append({"question": "다른 질문입니까?", "options": ["예", "아니요"], "answer": 1})
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    found = unseen_questions(recipe(), [str(path)], Tally())
    assert [q.question for q in found] == [kept[0].question, "다른 질문입니까?"]


def test_when_tuning_reads_every_question_there_is_nothing_to_evaluate_on(recipe) -> None:
    with pytest.raises(DataError, match=r"none is left to evaluate on; raise instruct\.test_share"):
        unseen_questions(recipe("instruct.test_share=0"), ["samples:questions_ko"], Tally())


def test_a_question_of_the_evaluation_in_other_words_is_not_tuned_on(recipe, tmp_path: Path) -> None:
    asked = read_questions(["samples:questions_ko"], Tally())[:8]
    turned = [
        Question(q.id, q.question.replace("은 ", "이 ").replace(" ", "  ") + " 고르시오.", q.options[::-1], 0)
        for q in asked
    ]
    own = Question("own", "우리 병원의 식당은 몇 층에 있습니까?", ("일 층", "이 층", "삼 층"), 0)
    settings = (
        f"evaluate.target_questions=['{saved(tmp_path / 'asked.jsonl', asked)}']",
        f"instruct.questions=['{saved(tmp_path / 'tuned.jsonl', [*turned, own])}']",
        "instruct.test_share=0",
        "instruct.instructions=['samples:instructions_ko']",
    )
    pairs, counts = tuning_pairs(recipe(*settings))
    assert counts["dropped"][LEAKED] == 8
    assert counts["examples"] == len(pairs)
    texts = "\n".join(text for pair in pairs for text in pair)
    assert own.question in texts
    assert not any(q.question in texts for q in turned)


@pytest.mark.parametrize("privacy", ["replace", "drop", "keep"])
def test_personal_data_of_a_tuning_pair_is_treated_like_that_of_a_text(recipe, tmp_path: Path, privacy: str) -> None:
    path, number = tmp_path / "pairs.jsonl", "010-1234-5678"
    rows = [
        {"instruction": f"환자의 연락처 {number}을 적으세요.", "response": f"연락처는 {number}입니다."},
        {"instruction": "왜 좋은가요?", "response": "혈압이 내려갑니다."},
        {"instruction": "누구인가요?", "response": normalize("NFD", "환자명: 김철수")},
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    pairs, counts = tuning_pairs(
        recipe("instruct.questions=[]", f"instruct.instructions=['{path}']", f"data.privacy={privacy}")
    )
    texts = ["\n".join(pair) for pair in pairs]
    assert counts["examples"] == len(pairs) == (1 if privacy == "drop" else 3)
    assert counts["dropped"] == ({"holds personal data": 2} if privacy == "drop" else {})
    assert counts["privacy"] == ({} if privacy == "keep" else {"name": 1, "phone": 2})
    assert sum(text.count(number) for text in texts) == (2 if privacy == "keep" else 0)


def test_tuning_on_what_forbids_commerce_has_to_be_said(recipe, tmp_path: Path) -> None:
    path = saved(tmp_path / "copy.jsonl", read_questions(["samples:questions_ko"], Tally())[:4])
    tuned = f"instruct.questions=['benchmark:kormedmcqa={path}']"
    (told,) = not_commercial(recipe(tuned))
    assert "CC BY-NC 2.0" in told
    assert "instruct.non_commercial = true" in told
    assert not_commercial(recipe(tuned, "instruct.non_commercial=true")) == []
    asked = f"evaluate.target_questions=['benchmark:kormedmcqa={path}']"
    assert not_commercial(recipe(asked)) == []
    assert [(x.name, x.license, x.note) for x in question_licences(recipe(tuned, asked))] == [
        ("kormedmcqa", "CC BY-NC 2.0", "questions: evaluation"),
        ("kormedmcqa", "CC BY-NC 2.0", "questions: tuning"),
    ]


def test_the_run_stops_at_the_sources_and_says_all(done, tmp_path: Path) -> None:
    path = saved(tmp_path / "copy.jsonl", read_questions(["samples:questions_ko"], Tally())[:4])
    asked = "evaluate.replay_questions=['benchmark:kormedlawqa']"
    with pytest.raises(DataError) as told:
        done(f"instruct.questions=['benchmark:kormedmcqa={path}']", asked)
    assert "2 of the recipe's sources cannot be had" in str(told.value)
    assert "which commit" in str(told.value)
    assert "non_commercial" in str(told.value)


def test_a_benchmark_that_is_asked_stands_on_the_bill_without_a_warning(done, tmp_path: Path) -> None:
    from vocabgraft.report.ledger import read_ledger
    from vocabgraft.report.licences import licence_bill

    path = saved(tmp_path / "copy.jsonl", read_questions(["samples:questions_ko"], Tally())[:4])
    run = done(f"evaluate.target_questions=['benchmark:kormedmcqa={path}']", until="01")
    (line,) = (x for x in licence_bill(read_ledger(run.folder)) if x.name == "kormedmcqa")
    assert (line.license, line.warning) == ("CC BY-NC 2.0", "")


def of_sets(**sizes: int) -> list[Question]:
    return [
        Question(str(n), f"무엇 {n}?", ("가", "나"), 0, set=name) for name, size in sizes.items() for n in range(size)
    ]


def test_a_sample_keeps_the_shares_of_its_sets_and_their_order() -> None:
    questions = of_sets(a=600, b=200)
    found = sampled(questions, 400)
    assert len(found) == 400
    assert 250 <= sum(q.set == "a" for q in found) <= 350
    assert found == sampled(questions, 400) == [q for q in questions if q in found]
    assert sampled(questions, 9999) == questions
    assert sampled(questions, 0) == []


def test_sets_are_compared_together_and_retention_is_claimed_of_the_pool() -> None:
    questions = of_sets(a=40, b=40)
    gained = {"base": [False] * 80, "final": [True] * 20 + [False] * 60}
    scores = {n: SimpleNamespace(answers=[SimpleNamespace(right=r) for r in right]) for n, right in gained.items()}
    pool, sets = compared(questions, scores, 0.01)
    assert [c.name for c in sets] == ["a", "b"]
    assert {c.tests for c in sets} == {2}
    assert "better" in sets[0].sentence
    assert "no difference" in sets[1].sentence
    assert "kept" in pool.sentence
    assert not any("kept" in c.sentence for c in sets)
    assert (
        compared(questions[:40], {n: SimpleNamespace(answers=s.answers[:40]) for n, s in scores.items()}, None)[1] == []
    )
