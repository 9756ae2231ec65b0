"""Everything that goes wrong outside the program: one sentence, exit code 2, nothing lost, and a way on."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vocabgraft import cli
from vocabgraft.recipe import shipped_recipes
from vocabgraft.report.ledger import read_ledger
from vocabgraft.run import Run, damaged_outputs


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What it complained about; there must be such a thing, and no traceback."""
        assert self.code == 2, self.err
        assert "Traceback" not in self.err
        start = self.err.index("vocabgraft: ")
        return self.err[start:]


Call = Callable[..., Said]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run the program in this process, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))  # the command sets it
    handler = signal.getsignal(signal.SIGTERM)

    def run(*words: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["vocabgraft", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Said(int(ended.value.code or 0), out, err)

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def base(tied_world) -> list[str]:
    """Settings that take the tests' tiny model, so that nothing is made or looked for elsewhere."""
    return ["--set", "base.kind=folder", "--set", f"base.source={tied_world.base}"]


@pytest.fixture
def do(call: Call, base: list[str]) -> Call:
    """Run tiny-cpu in the folder 'run' with settings, as far as the text is prepared."""

    def run(*settings: str, until: str = "04", more: tuple[str, ...] = ()) -> Said:
        set_ = [word for s in settings for word in ("--set", s)]
        return call("run", "tiny-cpu", "--folder", "run", "--until", until, *base, *set_, *more)

    return run


def metrics(step: str) -> dict:
    return Run.open(Path("run")).manifest(step).metrics


def rows(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values), "utf-8")
    return path


# -- the recipe -----------------------------------------------------------------------------------------------------


def test_all_mistakes_of_a_recipe_are_told_at_once_with_what_was_meant(call: Call, tmp_path: Path) -> None:
    text = shipped_recipes()["tiny-cpu"].read_text("utf-8")
    text = text.replace("pieces = 200", "pieecs = 200").replace("[training]", "[trianing]")
    text = text.replace('train = ["lora"]', 'train = ["lroa"]')
    (tmp_path / "mine.toml").write_text(text, "utf-8")
    told = call("run", "mine.toml").sentence
    for part in ("'pieces'", "'training'", "'lora'", "tokenizer.pieces: missing"):
        assert part in told
    assert told.count("did you mean") == 3
    assert "4 problems" in told
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"name = [", "not TOML"), (b"name = '\xff'", "not UTF-8 at byte 8"), (b"", "missing"), (b"\x00", "not TOML")],
)
def test_a_recipe_that_cannot_be_read_is_said(call: Call, tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    assert told in call("check", "mine.toml").sentence


# -- data -----------------------------------------------------------------------------------------------------------


def test_every_missing_file_is_named_at_once_with_similar_names(do: Call, tmp_path: Path) -> None:
    rows(tmp_path / "korpus.jsonl", {"text": "가"})
    said = do(
        "data.target=['corpus.jsonl']",
        "data.dictionary=['words.tsv']",
        "evaluate.replay_questions=['questions.jsonl']",
        "instruct.instructions=['nowhere/i.jsonl']",
    )
    assert "4 of the recipe's sources cannot be had" in said.sentence
    assert "corpus.jsonl does not exist; similar names there: korpus.jsonl" in said.sentence
    for name in ("words.tsv", "questions.jsonl", "nowhere/i.jsonl"):
        assert f"{name} does not exist" in said.sentence


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("c.jsonl", b"", "data.target: no document in c.jsonl; dropped: none"),
        ("c.jsonl", b"\n\n  \n", "data.target: no document in c.jsonl; dropped: none"),
        ("c.jsonl", b'{"text": ""}\n{"body": 3}\n', "no document in c.jsonl; dropped: {'empty': 1, 'no text': 1}"),
        ("c.txt", b"\xff\xfe", "1 damaged record, 0 are allowed: c.txt:1 (invalid UTF-8)"),
        ("c.jsonl", b'{"n": 1}\n', "no document in c.jsonl"),
        ("c.csv", b"title\na\n", "has no column text, content, body; found are title"),
        ("c.txt", "혈압 1".encode("utf-16"), "is UTF-16; UTF-8 is needed"),
        ("c.jsonl.gz", b"", "truncated or damaged"),
        ("c.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99)[:-9], "truncated or damaged"),
        ("c.parquet", b"PAR1", "not a whole Parquet file"),
        ("c.docx", b"PK", "unknown kind"),
        ("c.jsonl", b'{"text": "only english here, and long enough to be a document of some use"}\n', "no text left"),
    ],
)
def test_a_corpus_that_cannot_be_used_is_one_sentence(
    do: Call, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert told in do(f"data.target=['{name}']").sentence
    assert do(more=("--from", "01")).code == 0


def test_damaged_lines_are_counted_by_reason_and_the_run_goes_on_where_they_are_allowed(
    do: Call, tmp_path: Path
) -> None:
    good = json.dumps(
        {"text": "고혈압 환자는 소금을 적게 먹고 매일 걷는 것이 좋다고 의사가 말했다."}, ensure_ascii=False
    )
    lines = [good.encode(), b'{"text": "\xed\x95"}', b"{", b"\xff\xff", b'{"text": "\\ud800"}', b'{"text": "a\\u0000"}']
    (tmp_path / "c.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    sources = "data.target=['c.jsonl', 'samples:korean']"
    assert "5 damaged records, 0 are allowed: c.jsonl:2 (invalid UTF-8), c.jsonl:3 (" in do(sources).sentence
    assert do(sources, "data.max_unreadable=5", more=("--from", "01")).code == 0
    found = metrics("02-collect")["target"]
    assert found["dropped"] == {"NUL character": 1, "invalid JSON": 1, "invalid UTF-8": 2, "lone surrogate": 1}
    assert found["read"] == found["kept"] + 5
    assert found["examples"]["invalid UTF-8"] == "c.jsonl:2"


QUESTION = {"question": "혈압이 높으면 무엇을 줄입니까?", "options": ["소금", "물", "잠"], "answer": 1}


def test_questions_with_a_wrong_key_are_counted_by_reason_and_the_run_goes_on(do: Call, tmp_path: Path) -> None:
    bad = [{**QUESTION, "answer": a} for a in (0, 4, "D", "", "AB", None, True, 1.5)]
    rows(tmp_path / "q.jsonl", QUESTION, *bad, {**QUESTION, "options": ["a"]}, {"options": ["a", "b"], "answer": 1})
    assert do("evaluate.target_questions=['q.jsonl']").code == 0
    dropped = metrics("04-preprocess")["questions"]["dropped"]
    assert dropped == {
        "answer key outside the options": 8,
        "fewer than two different options": 1,
        "no question": 1,
    }


def test_a_question_file_without_one_right_key_is_a_sentence(do: Call, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        rows(tmp_path / f"{name}.jsonl", {**QUESTION, "answer": 9}, {**QUESTION, "answer": "Z"})
    told = do(
        "evaluate.target_questions=['a.jsonl']",
        "evaluate.replay_questions=['b.jsonl']",
        "instruct.questions=['c.jsonl']",
    ).sentence
    assert "no usable question in a.jsonl, b.jsonl, c.jsonl" in told
    assert "'answer key outside the options': 6" in told


# -- the model ------------------------------------------------------------------------------------------------------


def test_a_base_folder_that_is_none_is_a_sentence(do: Call, tmp_path: Path) -> None:
    assert "base model folder nowhere does not exist" in do("base.source=nowhere").sentence
    (tmp_path / "empty").mkdir()
    assert "no config.json" in do("base.source=empty").sentence
    (tmp_path / "empty" / "config.json").write_text("{", "utf-8")
    assert "not JSON" in do("base.source=empty").sentence
    (tmp_path / "empty" / "config.json").write_text('{"auto_map": {}}', "utf-8")
    assert "would run code that came with the model" in do("base.source=empty").sentence
    (tmp_path / "empty" / "config.json").write_text("{}", "utf-8")
    (tmp_path / "empty" / "pytorch_model.bin").write_bytes(b"\x80")
    assert "pickled weights are not read" in do("base.source=empty").sentence


def test_a_gated_hub_recipe_without_network_names_each_source_its_gate_and_the_way_on(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "NO_COLOR": "1"}
    found = subprocess.run(
        [sys.executable, "-m", "vocabgraft", "run", "korean-medgemma-4b"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    told = Said(found.returncode, found.stdout, found.stderr).sentence
    assert "3 of the recipe's sources cannot be had" in told  # Wikipedia is wanted in two languages
    for part in ("HuggingFaceFW/fineweb-2", "wikimedia/wikipedia", "base model google/medgemma-4b-it"):
        assert part in told
    assert "accept the Health AI Developer Foundations terms at https://huggingface.co/google/medgemma-4b-it" in told
    assert "--set base.kind=folder --set base.source=PATH" in told
    assert "download https://huggingface.co/datasets/wikimedia/wikipedia elsewhere" in told


# -- the run folder -------------------------------------------------------------------------------------------------


def test_a_second_process_on_the_same_folder_is_refused(do: Call, tmp_path: Path) -> None:
    assert do(until="02").code == 0
    hold = (
        "import time; from pathlib import Path; from vocabgraft.run import Run\n"
        "with Run(Path('run'), None).lock():\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", hold], cwd=tmp_path, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert f"in use by process {other.pid} on " in do().sentence
        other.kill()
    assert do().code == 0


def test_a_flipped_bit_in_a_finished_step_stops_the_run_before_it_is_used(do: Call, tmp_path: Path) -> None:
    assert do(until="02").code == 0
    path = tmp_path / "run" / "02-collect" / "target.jsonl"
    content = bytearray(path.read_bytes())
    content[1000] ^= 4
    path.write_bytes(content)
    told = do().sentence
    assert "02-collect/target.jsonl: SHA-256 differs from the manifest" in told
    assert "--from 02-collect" in told
    assert do(more=("--from", "02")).code == 0
    assert path.read_bytes() != content


@pytest.mark.parametrize("name", ["recipe.resolved.json", "02-collect/manifest.json", "events.jsonl"])
def test_damaged_records_are_a_sentence_for_every_command_and_can_be_mended(
    do: Call, call: Call, tmp_path: Path, name: str
) -> None:
    assert do(until="03").code == 0
    (tmp_path / "run" / name).write_bytes(b'{"\xff')
    if name != "events.jsonl":  # the ledger drops a torn line and goes on
        for command in ("status", "report"):
            assert f"{name}: damaged" in call(command, "run").sentence
    assert do(more=("--from", "02")).code == 0
    assert call("status", "run").code == 0
    assert call("report", "run").code == 0


# -- the disk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/vocabgraft", "/dev/null/run"])
def test_a_place_that_cannot_be_written_is_a_sentence(call: Call, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("precious", "utf-8")
    told = call("run", "tiny-cpu", "--folder", place).sentence
    assert str(place) in told
    assert told.count("\n") == 1
    assert (tmp_path / "file").read_text("utf-8") == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_a_sentence(call: Call, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    assert "no permission to write there" in call("run", "tiny-cpu", "--folder", "locked/run").sentence


def test_a_report_that_cannot_be_written_is_a_sentence(do: Call, call: Call) -> None:
    do(until="00")
    assert "check the path" in call("report", "run", "--out", "no/such/r.html").sentence


def limited(limit: int, folder: Path, *words: str) -> Said:
    """Run the program where no file can grow beyond `limit` bytes: what a full disk looks like to a writer."""

    def stop_growing() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    found = subprocess.run(
        [sys.executable, "-m", "vocabgraft", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=stop_growing,
    )
    return Said(found.returncode, found.stdout, found.stderr)


def whole(folder: Path) -> bool:
    """Every finished step is what its manifest says."""
    run = Run.open(folder)
    steps = [p.parent.name for p in folder.glob("*/manifest.json")]
    return bool(steps) and not any(damaged_outputs(run.path(s), run.manifest(s).outputs) for s in steps)


def test_a_full_disk_loses_nothing_and_the_same_command_goes_on(do: Call, base: list[str], tmp_path: Path) -> None:
    words = ["run", "tiny-cpu", "--folder", "run", *base]
    for limit, stopped in ((10, ""), (2_000, ""), (60_000, "02-collect.partial"), (60_000, "02-collect.partial")):
        told = limited(limit, tmp_path, *words).sentence
        assert f"{stopped}: no space left to write; free some disk space" in told
        assert "run the same command again" in told
    assert sorted(p.parent.name for p in tmp_path.glob("run/*/manifest.json")) == ["00-environment", "01-sources"]
    assert do(until="12").code == 0
    for limit in (20_000, 50_000):  # tokenizer.model, tokenizer.json
        told = limited(limit, tmp_path, *words).sentence
        assert "13-expand-tokenizer.partial: no space left to write" in told
    assert do(until="13").code == 0
    assert whole(tmp_path / "run")
    assert not (tmp_path / "run" / "aside").exists()
    assert [e["step"] for e in read_ledger(tmp_path / "run").events if e["event"] == "done"] == [
        *("00-environment", "01-sources", "02-collect", "03-dictionary", "04-preprocess"),
        *("11-train-tokenizer", "12-select-pieces", "13-expand-tokenizer"),
    ]
