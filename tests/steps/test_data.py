"""Phase 0: nothing goes missing, nothing of the tests leaks into training, nothing of training into the probes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vocabgraft.corpus.document import read_documents
from vocabgraft.errors import DataError, MachineError
from vocabgraft.evaluation.questions import read_questions
from vocabgraft.steps import data


def rows(path: Path, texts: list[str]) -> str:
    lines = (json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts)
    path.write_text("".join(lines), "utf-8")
    return f"data.target=['{path}']"


def sentence(n: int) -> str:
    return f"환자 {n}번은 혈압이 높아서 소금을 줄이고 매일 {n}분씩 걷기로 의사와 약속하였다고 한다."


def prepared(run, side: str) -> tuple[list[str], list[str]]:
    return tuple(
        [d.text for d in read_documents(run.path("04-preprocess", f"{side}.{split}.jsonl"))]
        for split in ("train", "held")
    )


def test_every_text_is_trained_on_or_held_out_or_dropped_for_a_reason(done, tmp_path: Path) -> None:
    texts = [sentence(n) for n in range(60)]
    run = done(rows(tmp_path / "c.jsonl", [*texts, "짧다", "only english text that is certainly long enough to count"]))
    train, held = prepared(run, "target")
    assert sorted([*train, *held]) == sorted(texts)
    assert 0 < len(held) < 25
    found = run.manifest("04-preprocess").metrics["target"]
    assert (found["documents"], found["held_out_documents"]) == (len(train), len(held))
    assert found["bytes"] == sum(len(t.encode()) for t in train)
    assert sum(found["dropped"].values()) == 2


def test_a_text_that_is_there_twice_is_never_on_both_sides(done, tmp_path: Path) -> None:
    texts = [sentence(n % 20) for n in range(60)]
    train, held = prepared(done(rows(tmp_path / "c.jsonl", texts)), "target")
    assert len([*train, *held]) == 20
    assert set(train) & set(held) == set()


def test_a_benchmark_question_in_the_corpus_does_not_reach_training(done, tmp_path: Path) -> None:
    from vocabgraft.corpus.document import Tally

    question = read_questions(["samples:questions_ko"], Tally())[0].question
    run = done(
        rows(tmp_path / "c.jsonl", [*(sentence(n) for n in range(40)), f"기출 문제이다. {question} 답을 고르시오."])
    )
    train, held = prepared(run, "target")
    assert not any(question in t for t in [*train, *held])
    assert run.manifest("04-preprocess").metrics["target"]["dropped"] == {"holds a benchmark question": 1}


def test_a_text_nearly_the_same_as_a_held_out_one_leaves_training(done, tmp_path: Path) -> None:
    texts = [
        f"{sentence(n)} 이 밖의 것은 {n * 7919}쪽에 적혀 있고, 담당 간호사가 매주 확인하여 기록한다." for n in range(40)
    ]
    changed = [f"{t} 끝." for t in texts]
    run = done(rows(tmp_path / "c.jsonl", [*texts, *changed]))
    train, held = prepared(run, "target")
    assert len([*train, *held]) == 40
    alike = dict(zip(texts, changed, strict=True)) | {c: t for t, c in zip(texts, changed, strict=True)}
    assert not {alike[t] for t in held} & set(train)
    found = run.manifest("04-preprocess").metrics["target"]
    assert found["dropped"] == {"near duplicate": 40}
    assert (found["read"], found["documents"] + found["held_out_documents"]) == (80, 40)
    assert abs(int(found["near_duplicates"][0][2:-2]) - int(found["near_duplicates"][1][2:-2])) == 40


def test_nearly_the_same_is_kept_where_the_recipe_says_so(done, tmp_path: Path) -> None:
    texts = [sentence(n) for n in range(40)]
    run = done(rows(tmp_path / "c.jsonl", [*texts, *(f"{t} 끝" for t in texts)]), "data.near_duplicates=0")
    assert len([text for split in prepared(run, "target") for text in split]) == 80


def test_a_text_of_which_cleaning_leaves_nothing_is_counted(done, tmp_path: Path) -> None:
    run = done(rows(tmp_path / "c.jsonl", ["\ufeff\x01", *(sentence(n) for n in range(40))]))
    found = run.manifest("04-preprocess").metrics["target"]
    assert (found["read"], found["dropped"]) == (41, {"too short": 1})


def test_a_corpus_too_small_to_hold_anything_out_is_said(done, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no text left held out to measure on.*data\.held_out"):
        done(rows(tmp_path / "c.jsonl", [sentence(1)]), "data.held_out=0")


def test_preparing_the_same_sources_gives_the_same_bytes(done, tmp_path: Path) -> None:
    first = {o["path"]: o["sha256"] for o in done().manifest("04-preprocess").outputs}
    (tmp_path / "run").rename(tmp_path / "before")
    assert {o["path"]: o["sha256"] for o in done().manifest("04-preprocess").outputs} == first


def test_licences_of_base_and_sources_are_recorded(done) -> None:
    found = done(until="01").manifest("01-sources").licences
    assert found[0].note == "base model"
    assert {"data: target", "data: replay", "data: dictionary"} <= {licence.note for licence in found}
    assert all(licence.license for licence in found)


def test_probe_windows_are_few_a_document_in_a_fixed_order_and_within_the_limit(done, context) -> None:
    run = done()
    size = run.recipe.evaluate.window_bytes
    held = prepared(run, "target")[1]
    chosen = data.probe_windows(context(run), "target", 4096)
    assert chosen == data.probe_windows(context(run), "target", 4096)
    assert 0 < sum(len(w.encode()) for w in chosen) <= 4096
    assert all(len(w.encode()) <= size and any(w in text for text in held) for w in chosen)
    more = data.probe_windows(context(run), "target", 8192)
    assert more[: len(chosen)] == chosen
    everything = data.probe_windows(context(run), "target", 1 << 30)
    assert max(sum(w in text for w in everything) for text in held) <= 3


def test_one_window_is_measured_however_small_the_limit(done, context) -> None:
    assert len(data.probe_windows(context(done()), "replay", 1)) == 1


def test_stamps_follow_the_content_of_files_and_not_their_place(tmp_path: Path, recipe) -> None:
    stamps = data.source_stamps(recipe())
    assert {"korean/prose_a.jsonl", "dictionary.tsv", "samples:questions_ko"} <= set(stamps)
    setting = rows(tmp_path / "c.jsonl", ["가"])
    before = data.source_stamps(recipe(setting))
    (tmp_path / "c.jsonl").touch()
    assert data.source_stamps(recipe(setting)) == before
    rows(tmp_path / "c.jsonl", ["나"])
    assert data.source_stamps(recipe(setting)) != before
    (tmp_path / "c.jsonl").unlink()
    assert data.source_stamps(recipe(setting))[str(tmp_path / "c.jsonl")] == "missing"


@pytest.mark.parametrize("size", [1 << 20, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, 5 << 20])
def test_a_stamp_sees_both_ends_and_the_size_of_a_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "big"
    path.write_bytes(bytes(size))
    stamps = {data._stamp(path)}
    for changed in (b"x" + bytes(size - 1), bytes(size - 1) + b"x", bytes(size + 1)):
        path.write_bytes(changed)
        stamps.add(data._stamp(path))
    assert len(stamps) == 4


def test_a_file_that_cannot_be_read_stops_no_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("x", "utf-8")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert data._stamp(path) == "unreadable"


def test_a_machine_without_disk_stops_the_run_at_once(done, context) -> None:
    run = done(until="00")
    small = replace(context(run), machine=replace(context(run).machine, disk_free_gb=0.5))
    with pytest.raises(MachineError, match=r"0\.5 GB free on this disk; at least 1\.0 GB are needed"):
        data.environment(small)


def test_training_text_is_told_by_source_licence_and_length(done) -> None:
    found = done().manifest("04-preprocess").metrics["target"]
    for rows_of in ("sources", "licences"):
        assert sum(row["documents"] for row in found[rows_of].values()) == found["documents"]
        assert sum(row["bytes"] for row in found[rows_of].values()) == found["bytes"]
    assert {row["license"] for row in found["sources"].values()} == set(found["licences"])
    assert sum(found["lengths"].values()) == found["documents"]
    assert all(int(bound) & (int(bound) - 1) == 0 for bound in found["lengths"])
