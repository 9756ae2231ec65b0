"""Known data sets: every entry is whole, rows become texts, and what cannot be had is told with what to do."""

from __future__ import annotations

import csv
import json
import sys
import types
from pathlib import Path

import polars as pl
import pytest

from vocabgraft.corpus import reach as reaching
from vocabgraft.corpus.document import Tally, describe_source, read_source
from vocabgraft.corpus.reach import reach
from vocabgraft.corpus.source import locate
from vocabgraft.corpus.sources import Source, catalogue, named
from vocabgraft.errors import DataError
from vocabgraft.evaluation.benchmarks import catalogue as benchmarks
from vocabgraft.report.licences import Licence

NAMES = sorted(catalogue())


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_says_what_a_person_must_know(name: str) -> None:
    known = catalogue()[name]
    assert known.title
    assert known.license_url.startswith("https://")
    assert known.uses
    assert known.access == "open" or known.access_note
    warning = Licence(name, known.license, "", "", ()).warning
    assert ("non-commercial" in warning, "unknown" in warning) == (known.non_commercial, known.unknown_terms)
    assert ("share alike" in warning) == known.share_alike or "each article" in known.license


def test_no_source_is_what_a_benchmark_asks_unless_it_is_for_evaluation_alone() -> None:
    asked = {(b.dataset, b.split) for b in benchmarks().values() if b.kind == "questions"}
    assert [s.name for s in catalogue().values() if (s.dataset, s.split) in asked and "pretrain" in s.uses] == []
    assert [s.name for s in catalogue().values() if s.split == "test" and s.uses != ("evaluate",)] == []


ROWS = {
    "asan-healthinfo": ({"instruction": "정의는?", "input": "", "output": "병이다."}, "정의는?\n병이다."),
    "komedinstruct": ({"instruction": "말하라", "input": "<noinput>", "output": "쉰다."}, "말하라\n쉰다."),
    "kbmc": ({"Sentence": "다한증 은 병 이다", "Tags": "O"}, "다한증 은 병 이다"),
    "pubmedqa-artificial": ({"question": "Q?", "context": {"contexts": ["A.", "B."]}, "long_answer": "C."},
                            "Q?\nA.\nB.\nC."),
    "medquad": ({"question": "Q?", "answer": ""}, ""),
    "medmcqa-train": ({"question": "Q?", "exp": None}, "Q?"),
    "wikipedia-ko": ({"title": "고혈압", "text": "병이다. {title}"}, "고혈압\n병이다. {title}"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "row", "text"), [(n, *r) for n, r in ROWS.items()], ids=list(ROWS))
def test_a_row_becomes_a_text(name: str, row: dict[str, object], text: str) -> None:
    assert catalogue()[name].document(row)["text"] == text


def test_a_row_without_the_columns_is_left_as_it_is() -> None:
    assert catalogue()["medquad"].document({"text": "a", "question": "b"}) == {"text": "a", "question": "b"}


def texts(source: str) -> tuple[list[str], Tally]:
    tally = Tally()
    found = list(read_source(source, language="ko", license="x", tally=tally))
    tally.check()
    assert {d.license for d in found} <= {catalogue()[named(source).source.name].license}
    assert {d.source for d in found} <= {named(source).source.name}
    return [d.text for d in found], tally


ASAN = [{"instruction": f"{n}?", "input": "", "output": f"{n}."} for n in range(3)]


def test_rows_at_hand_are_read_as_the_source_they_are_named_as(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ASAN) + '{"other": 1}\n', "utf-8")
    pl.DataFrame(ASAN).write_parquet(tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(ASAN[0]))
        table.writeheader()
        table.writerows(ASAN)
    wanted = [f"{n}?\n{n}." for n in range(3)]
    for name in ("a.jsonl", "a.parquet", "a.csv"):
        found, tally = texts(f"source:asan-healthinfo={tmp_path / name}")
        assert found == wanted
        assert tally.dropped == ({"no text": 1} if name == "a.jsonl" else {})
    assert describe_source(f"source:asan-healthinfo={tmp_path}")["license"] == "unknown"


def test_a_table_without_the_columns_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"a": ["b"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column text, content, body and not all of question, answer; found are a"):
        texts(f"source:medquad={tmp_path / 'a.parquet'}")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("source:fineweb-2-kr", "source 'fineweb-2-kr' is unknown; did you mean 'fineweb-2-ko'"),
        ("source:a b", "is not of the form source:NAME"),
        ("source:kormedmcqa-train", "has several parts; name one: source:kormedmcqa-train/doctor"),
        ("source:kormedmcqa-train/vet", "has no part 'vet'; its parts: doctor, nurse"),
        ("source:kbmc=nowhere.jsonl", r"nowhere\.jsonl does not exist"),
    ],
)
def test_a_source_that_is_not_there_is_told(source: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        locate(source)


def test_a_part_and_a_commit_are_asked_of_the_hub() -> None:
    hub = locate("source:kormedmcqa-train/nurse@abc").hub
    assert (hub.dataset, hub.config, hub.revision, hub.split) == ("sean0042/KorMedMCQA", "nurse", "abc", "train")


def test_without_a_commit_the_pinned_one_is_asked_for() -> None:
    hub = locate("source:wikipedia-ko").hub
    assert hub.revision == catalogue()["wikipedia-ko"].revision
    assert locate("source:kbmc").hub.revision is None


class Hub:
    """Answers of a hub."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
        self.errors = types.SimpleNamespace(
            **{
                n: type(n, (Exception,), {})
                for n in ("GatedRepoError", "RepositoryNotFoundError", "RevisionNotFoundError")
            }
        )
        self.answer = answer
        module = types.ModuleType("huggingface_hub")
        module.HfApi = lambda: self
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        errors = types.ModuleType("huggingface_hub.errors")
        vars(errors).update(vars(self.errors))
        monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)

    def dataset_info(self, dataset: str, revision: str | None, timeout: float) -> object:
        assert timeout == reaching.TIMEOUT
        if isinstance(self.answer, str):
            raise vars(self.errors).get(self.answer, OSError)("Name or service not known")
        return self.answer

    def auth_check(self, dataset: str, repo_type: str) -> None:
        raise self.errors.GatedRepoError


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        (types.SimpleNamespace(gated=False, sha="abc"), "reachable", "commit abc"),
        (types.SimpleNamespace(gated="auto", sha="abc"), "gated", "agree on the data set's page"),
        ("RevisionNotFoundError", "missing", "has no commit"),
        ("RepositoryNotFoundError", "missing", "is not there, or is private"),
        ("other", "not reachable", r"does not answer \(Name or service not known\); download it elsewhere"),
    ],
)
def test_the_hub_is_asked_and_its_answer_put_into_a_sentence(
    monkeypatch: pytest.MonkeyPatch, answer: object, status: str, says: str
) -> None:
    import re

    Hub(monkeypatch, answer)
    found = reach("source:oscar-ko@abc")
    assert found.status == status
    assert re.search(says, found.says)
    assert found.good == (status == "reachable")


def test_files_are_looked_for_without_the_hub(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}", "utf-8")
    assert reach(str(tmp_path / "a.jsonl")).status == "here"
    assert reach(str(tmp_path / "b.jsonl")).status == "missing"
    assert reach("samples:korean").good


def test_an_unknown_word_in_the_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Source(name="a", title="", language="", dataset="", text="", license="", license_url="", uses=(), licence="")
