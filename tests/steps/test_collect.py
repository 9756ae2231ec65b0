"""02-collect: every record is in the result or in the account, and too many damaged ones stop the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vocabgraft.corpus.document import read_documents
from vocabgraft.errors import DataError

GOOD = '{"text": "혈압이 높으면 소금을 줄이고 매일 걷는 것이 좋다."}\n'.encode()
BAD = b'{"text": "\xff"}\n'


def collected(done, *settings: str):
    run = done(*settings, until="02")
    return run, json.loads(run.path("02-collect", "tally.json").read_text("utf-8"))["target"]


def test_reading_stops_at_the_byte_limit_in_source_order_and_says_what_was_not_read(done, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(GOOD * 3)
    names = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    size = len(json.loads(GOOD)["text"].encode())
    run, found = collected(done, f"data.target={names}", f"data.replay={names}", f"data.max_bytes={2 * size + 1}")
    assert [d.id for d in read_documents(run.path("02-collect", "target.jsonl"))] == ["a:1", "a:2"]
    assert (found["read"], found["kept"], found["dropped"]) == (3, 2, {"beyond data.max_bytes": 1})
    assert found["not_read"] == names


def test_one_damaged_record_stops_the_run_and_is_named_with_the_way_out(done, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(GOOD + BAD + GOOD)
    with pytest.raises(
        DataError, match=r"1 damaged record, 0 are allowed: c\.jsonl:2 \(invalid UTF-8\).*data\.max_unreadable"
    ):
        collected(done, f"data.target=['{tmp_path / 'c.jsonl'}']")


@pytest.mark.parametrize(("allowed", "stops"), [(1, True), (2, False)])
def test_damaged_records_are_allowed_up_to_the_number_in_the_recipe(
    done, tmp_path: Path, allowed: int, stops: bool
) -> None:
    (tmp_path / "c.jsonl").write_bytes(GOOD + BAD + GOOD + BAD)
    settings = (f"data.target=['{tmp_path / 'c.jsonl'}']", f"data.max_unreadable={allowed}")
    if stops:
        with pytest.raises(DataError, match="2 damaged records, 1 are allowed"):
            collected(done, *settings)
        return
    _, found = collected(done, *settings)
    assert (found["read"], found["kept"], found["dropped"]) == (4, 2, {"invalid UTF-8": 2})


def test_each_file_has_an_account_of_its_own(done, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.jsonl").write_bytes(GOOD * 2)
    (tmp_path / "c" / "b.jsonl").write_bytes(GOOD + b'{"text": ""}\n')
    _, found = collected(done, f"data.target=['{tmp_path / 'c'}']")
    accounts = {Path(name).name: (row["read"], row["kept"]) for name, row in found["files"].items()}
    assert accounts == {"a.jsonl": (2, 2), "b.jsonl": (2, 1)}


def test_a_file_whose_records_all_lack_a_text_is_refused(done, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(GOOD)
    (tmp_path / "d.jsonl").write_bytes(b'{"document": "..."}\n' * 3)
    names = [str(tmp_path / name) for name in ("c.jsonl", "d.jsonl")]
    with pytest.raises(DataError, match=r"none of the 3 records of .*d\.jsonl has text in a field called text"):
        collected(done, f"data.target={names}")


def test_repeated_ids_are_counted_and_their_texts_stay(done, tmp_path: Path) -> None:
    rows = [{"id": "x", "text": f"혈압이 {n}이면 소금을 줄인다."} for n in range(3)]
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    _, found = collected(done, f"data.target=['{tmp_path / 'c.jsonl'}']")
    assert (found["kept"], found["repeated_ids"]) == (3, 2)
