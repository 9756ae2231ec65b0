"""Planted personal data: none of it comes out of step 04, and none of it reaches what a run says about itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vocabgraft.corpus.document import read_documents
from vocabgraft.errors import RecipeError
from vocabgraft.report.data_section import data as data_section
from vocabgraft.report.ledger import read_ledger
from vocabgraft.run import Run

Done = Callable[..., Run]
ALIKE = "data.near_duplicates=0"  # these records say the same but for what is personal


def canaries(n: int) -> list[str]:
    return [f"85{n % 12 + 1:02d}15-1{n:06d}", f"010-77{n:02d}-91{n:02d}", f"CN88{n:04d}", f"canary{n}@naver.com"]


def planted(folder: Path) -> str:
    rest = "오늘도 혈압이 높아서 소금을 줄이고 매일 걷기로 의사와 약속하였다고 한다."
    rows = [
        f"{n}번째 기록. 주민등록번호 {number}, 연락처 {phone}, 차트번호: {chart}, {mail} {rest}"
        for n in range(40)
        for number, phone, chart, mail in [canaries(n)]
    ]
    path = folder / "records.jsonl"
    rows += [f"{n}번째 이야기이다. {rest}" for n in range(40)]
    path.write_text("".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return f"data.target=['{path}']"


def written(run: Run) -> str:
    return "".join(
        path.read_text("utf-8", errors="ignore")
        for path in sorted(run.folder.rglob("*"))
        if path.is_file() and "02-collect" not in path.parts
    )


def test_none_of_160_canaries_leaves_the_documents_as_read(
    done: Done, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    run = done(planted(tmp_path), ALIKE)
    said = "".join([written(run), *capfd.readouterr(), caplog.text])
    assert [c for n in range(40) for c in canaries(n) if c in said] == []
    counts = run.manifest("04-preprocess").metrics["target"]["privacy"]
    assert counts == {"resident": 40, "phone": 40, "chart": 40, "email": 40}
    assert "chart 40, email 40, phone 40, resident 40" in data_section(read_ledger(run.folder))


def test_drop_leaves_the_documents_out_and_keep_leaves_them_as_they_are(done: Done, tmp_path: Path) -> None:
    setting = planted(tmp_path)
    run = done(setting, ALIKE, "data.privacy=drop")
    found = run.manifest("04-preprocess").metrics["target"]
    assert found["dropped"]["holds personal data"] == 40
    assert found["privacy"]["resident"] == 40
    assert not any(c in written(run) for n in range(40) for c in canaries(n))


def test_keep_looks_for_nothing(done: Done, tmp_path: Path) -> None:
    run = done(planted(tmp_path), ALIKE, "data.privacy=keep")
    found = run.manifest("04-preprocess").metrics["target"]
    files = [run.path("04-preprocess", f"target.{split}.jsonl") for split in ("train", "held")]
    texts = "".join(document.text for file in files for document in read_documents(file))
    assert (found["privacy"], canaries(7)[0] in texts) == ({}, True)


def test_a_secret_key_changes_the_pseudonyms_and_is_written_nowhere(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSPITAL_KEY", "a canary of a secret key")
    run = done(planted(tmp_path), ALIKE, "data.privacy_key=HOSPITAL_KEY")
    assert "a canary of" not in written(run)
    assert "HOSPITAL_KEY" in written(run)


@pytest.mark.parametrize(("value", "said"), [("", "is not set"), ("short canary", "holds 12 bytes")])
def test_a_missing_or_short_key_is_refused_without_being_told(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    monkeypatch.setenv("HOSPITAL_KEY", value)
    with pytest.raises(RecipeError, match=f"HOSPITAL_KEY {said}; set it to a secret of at least 16 bytes") as caught:
        done(planted(tmp_path), ALIKE, "data.privacy_key=HOSPITAL_KEY")
    assert "canary" not in str(caught.value)
