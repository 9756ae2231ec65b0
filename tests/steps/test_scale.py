"""Steps 02 and 04: the same bytes however the work is cut and shared out, whatever is killed, and nothing lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabgraft.corpus.document import Document, document_line, read_documents
from vocabgraft.errors import DataError
from vocabgraft.evaluation.questions import Question
from vocabgraft.machine import detect
from vocabgraft.pipeline import execute
from vocabgraft.run import Run
from vocabgraft.scale.tasks import Stretch, Task, perform
from vocabgraft.steps import reading
from vocabgraft.steps.prepare import Prepared, key_check, prepare
from vocabgraft.steps.preprocess import Corpus

STEPS = ("02-collect", "04-preprocess")
DRAW = random.Random(0)
WORDS = [
    "혈압",
    "환자",
    "소금",
    "간호사",
    "처방",
    "검사",
    "수술",
    "회복",
    "체중",
    "운동",
    "식사",
    "기록",
    "병원",
    "약물",
]


def sentence(n: int) -> str:
    draw = random.Random(n)
    return f"{n}번 " + " ".join(draw.choice(WORDS) + draw.choice("은는이가을를") for _ in range(30)) + "."


def written(folder: Path, files: int = 4, rows: int = 60) -> list[str]:
    """Files of texts with duplicates and near-duplicates within and across, a number of a person, and a bad record."""
    folder.mkdir()
    for n in range(files):
        texts = [sentence(n * rows // 2 + i) for i in range(rows)]
        texts += [f"{t} 끝." for t in texts[:5]] + [f"{sentence(10_000 + n)} 연락처: 010-1234-{1000 + n}", "짧다"]
        lines = [json.dumps({"text": t, "source": f"s{n % 2}"}, ensure_ascii=False).encode() for t in texts]
        (folder / f"{n}.jsonl").write_bytes(b"\n".join([*lines, b'{"text": "\xff"}', b""]))
    return [str(folder / f"{n}.jsonl") for n in range(files)]


@pytest.fixture
def begun(tmp_path: Path, recipe, monkeypatch: pytest.MonkeyPatch):
    """A run of which 00 and 01 are done; again and again in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    files = written(tmp_path / "corpus")
    sets = [f"data.target={files[:3]}", f"data.replay={files[3:]}", "data.max_unreadable=9", "data.min_chars=20"]

    def begin(name: str, *more: str) -> Run:
        found = recipe(*sets, *more)
        if not (tmp_path / "first").exists():
            execute(Run.create(tmp_path / "first", found, ""), detect(tmp_path), until="01")
        shutil.copytree(tmp_path / "first", tmp_path / name)
        return Run.create(tmp_path / name, found, "")

    return begin


def published(run: Run) -> list:
    """SHA-256 and metrics of both steps."""
    found = [run.manifest(key) for key in STEPS]
    return [({o["path"]: o["sha256"] for o in m.outputs}, m.metrics) for m in found]


def through(run: Run) -> Run:
    execute(run, detect(run.folder), until="04")
    return run


def conserved(run: Run) -> None:
    """In = out + dropped: of every file, of each side, and from step to step."""
    accounts = json.loads(run.path("02-collect", "tally.json").read_text("utf-8"))
    for side in ("target", "replay"):
        first, last = (run.manifest(key).metrics[side] for key in STEPS)
        assert first["read"] == first["kept"] + sum(first["dropped"].values())
        for account in accounts[side]["files"].values():
            assert account["read"] == account["kept"] + sum(account["dropped"].values())
        assert sum(a["read"] for a in accounts[side]["files"].values()) == first["read"]
        shards = json.loads(run.path("02-collect", f"{side}.shards.json").read_text("utf-8"))
        assert sum(s["documents"] for s in shards) == first["kept"] == last["read"]
        assert last["read"] == last["documents"] + last["held_out_documents"] + sum(last["dropped"].values())
        for split, count in (("train", "documents"), ("held", "held_out_documents")):
            assert sum(1 for _ in read_documents(run.path("04-preprocess", f"{side}.{split}.jsonl"))) == last[count]


def test_the_same_is_published_by_one_two_and_four_workers(begun) -> None:
    one = through(begun("one"))
    conserved(one)
    wanted = published(one)
    assert {"duplicate", "near duplicate", "too short"} <= set(wanted[1][1]["target"]["dropped"])
    for workers in (2, 4):
        assert published(through(begun(str(workers), f"scale.workers={workers}"))) == wanted


def test_the_same_is_published_from_shards_of_any_size(begun, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = published(through(begun("whole")))
    monkeypatch.setattr(reading, "SHARD_BYTES", 2000)
    many = through(begun("many"))
    assert len(list((many.folder / "shards" / "04-preprocess").glob("*/receipt.json"))) > 20
    sums, metrics = published(many)[1]
    assert (sums, metrics) == wanted[1]


@pytest.mark.slow
def test_the_same_is_published_through_datatrove(begun) -> None:
    pytest.importorskip("datatrove", reason="pip install 'vocabgraft[scale]'")
    wanted = published(through(begun("one")))
    assert published(through(begun("local", "scale.engine=local", "scale.workers=2"))) == wanted


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(1, 17), (2, 17), (4, 16)])
def test_what_is_killed_at_any_moment_ends_in_the_same_bytes(begun, workers: int, kills: int) -> None:
    """Fifty kills in all, of the run itself and of its workers; each run goes on where the one before was killed."""
    started = time.monotonic()
    wanted = published(through(begun("one", f"scale.workers={workers}")))
    length, draw, done, round_ = time.monotonic() - started, random.Random(workers), 0, 0
    while done < kills:
        run = begun(f"killed{round_}", f"scale.workers={workers}")
        while run.manifest(STEPS[1]) is None:
            pid = os.fork()
            if pid == 0:
                try:
                    through(run)
                finally:
                    os._exit(0)
            time.sleep(draw.uniform(0.02, length))
            victims = [pid, *(below(pid) if draw.random() < 0.7 else [])]
            gone = os.waitpid(pid, os.WNOHANG)[0]
            if not gone and done < kills:
                os.kill(victims[-1], signal.SIGKILL)
                done += 1
            if not gone:
                os.waitpid(pid, 0)
        assert published(run) == wanted
        conserved(run)
        round_ += 1
    assert not list(run.folder.rglob("*.partial*"))


def below(pid: int) -> list[int]:
    try:
        return [int(c) for t in Path(f"/proc/{pid}/task").glob("*/children") for c in t.read_text("utf-8").split()]
    except OSError:
        return []


def test_a_changed_file_costs_its_own_shards_alone(begun, tmp_path: Path) -> None:
    run = through(begun("run"))
    inodes = {p: p.stat().st_ino for p in (run.folder / "shards").glob("*/*/receipt.json")}
    with (tmp_path / "corpus" / "1.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": sentence(77_777)}, ensure_ascii=False) + "\n")
    execute(run, detect(run.folder), from_step="01", until="04")
    conserved(run)
    now = {p: p.stat().st_ino for p in (run.folder / "shards").glob("*/*/receipt.json")}
    kept = [p for p in now if inodes.get(p) == now[p]]
    assert (len(now), len(kept)) == (8, 6)
    fresh = begun("fresh")
    execute(fresh, detect(fresh.folder), from_step="01", until="04")
    assert published(fresh) == published(run)


def test_damaged_shards_are_made_again_and_those_of_no_file_are_removed(begun) -> None:
    run = through(begun("run"))
    wanted = published(run)
    shards = run.folder / "shards"
    (shards / "04-preprocess" / "of-no-file").mkdir()
    for n, path in enumerate(sorted(p for p in shards.glob("*/*/*") if p.is_file())):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw if n % 2 else raw[: len(raw) // 2])
    execute(run, detect(run.folder), from_step="02", until="04")
    assert published(run) == wanted
    assert not (shards / "04-preprocess" / "of-no-file").exists()


def test_the_limit_in_bytes_falls_in_the_same_place_whoever_reads(begun) -> None:
    whole = published(through(begun("whole")))[0][1]["target"]["kept"]
    found = []
    for workers in (1, 2):
        run = through(begun(f"cut{workers}", "data.max_bytes=20000", f"scale.workers={workers}"))
        conserved(run)
        found.append(published(run))
    assert found[0] == found[1]
    assert 0 < found[0][0][1]["target"]["kept"] < whole
    assert found[0][0][1]["target"]["dropped"]["beyond data.max_bytes"] == 1


# -- both sides -----------------------------------------------------------------------------------------------------


def test_a_text_of_both_sides_stays_where_it_is_held_out_and_else_on_the_target_side(begun, tmp_path: Path) -> None:
    run = through(begun("run", f"data.replay=['{tmp_path}/corpus/2.jsonl', '{tmp_path}/corpus/3.jsonl']"))
    texts = {
        (side, split): {d.text for d in read_documents(run.path("04-preprocess", f"{side}.{split}.jsonl"))}
        for side in ("target", "replay")
        for split in ("train", "held")
    }
    plain = {key: {t.removesuffix(" 끝.") for t in some} for key, some in texts.items()}
    for one in plain:
        for other in plain:
            assert one == other or not plain[one] & plain[other]
    pair = run.manifest("04-preprocess").metrics["replay"]["near_duplicates"]
    assert len(pair) == 2


SETTINGS = {
    "script": "Hangul", "min_script_share": 0.3, "min_chars": 5, "max_chars": 200, "held_out": 0.3,
    "near_duplicates": 0.7, "privacy": "keep", "privacy_key": "", "key_check": "", "quality": "plain",
}  # fmt: skip


def test_a_worker_with_another_secret_is_refused_and_the_secret_is_in_no_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "a secret of sixteen bytes")
    mine = SETTINGS | {"privacy": "replace", "privacy_key": "KEY", "key_check": key_check("replace", "KEY")}
    (tmp_path / "d.jsonl").write_bytes(document_line(Document("1", sentence(1), "ko", "s", "l")))
    (tmp_path / "q.json").write_text("[]", "utf-8")
    inputs = (Stretch(tmp_path / "d.jsonl"), Stretch(tmp_path / "q.json"))
    perform(Task("vocabgraft.steps.prepare:prepare", 1, mine, inputs, tmp_path / "out"))
    assert b"a secret of sixteen bytes" not in b"".join(p.read_bytes() for p in (tmp_path / "out").iterdir())
    monkeypatch.setenv("KEY", "another secret of bytes")
    with pytest.raises(DataError, match="the environment variable KEY holds another secret on this worker"):
        prepare(mine, inputs, tmp_path)


@settings(max_examples=25)
@given(data=st.data())
def test_any_split_of_the_same_documents_gives_the_same_result(tmp_path_factory, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=24))
    ends = data.draw(st.lists(st.sampled_from(["", " 끝.", " 끝", "  "]), min_size=len(numbers), max_size=len(numbers)))
    documents = [
        Document(str(n), sentence(k) + end, "ko", f"s{k % 3}", f"l{k % 2}")
        for n, (k, end) in enumerate(zip(numbers, ends, strict=True))
    ]
    border = data.draw(st.integers(0, len(documents)))
    cuts = data.draw(st.sets(st.integers(0, len(documents))))
    folder = tmp_path_factory.mktemp("any")
    assert told(folder / "a", documents, border, {0}) == told(folder / "b", documents, border, cuts)


def told(folder: Path, documents: list[Document], border: int, cuts: set[int]) -> list:
    """What is left of documents, the first `border` of them of the target, when shards begin at `cuts`."""
    folder.mkdir()
    (folder / "q.json").write_text(json.dumps([asdict(Question("q", "무엇인가요?", ("가", "나"), 0))]), "utf-8")
    edges = sorted({0, border, len(documents), *cuts})
    shards: dict[str, list[Prepared]] = {"target": [], "replay": []}
    for n, (start, end) in enumerate(pairwise(edges)):
        (path := folder / f"{n}.jsonl").write_bytes(b"".join(map(document_line, documents[start:end])))
        (out := folder / f"{n}").mkdir()
        tally = prepare(SETTINGS, (Stretch(path), Stretch(folder / "q.json")), out)
        shards["target" if end <= border else "replay"].append(Prepared(out, tally))
    corpus = Corpus(shards, SETTINGS["near_duplicates"])
    kept = corpus.kept
    ids = [p.document(n).id for side in shards.values() for p in side for n in range(len(p))]
    assert len(ids) == len(kept)
    left = [i for i, keep in zip(ids, kept, strict=True) if keep]
    return [left, [corpus._example(side) for side in shards], np.flatnonzero(corpus._same).tolist()]
