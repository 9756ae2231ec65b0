"""All 22 steps on a tiny random Gemma 3: whole, again, killed anywhere, on a full disk, reading what they declare."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from vocabgraft import pipeline
from vocabgraft.machine import detect
from vocabgraft.pipeline import KEYS, STEPS, execute, plan
from vocabgraft.recipe import load_recipe
from vocabgraft.report.ledger import read_ledger
from vocabgraft.run import Run, damaged_outputs
from vocabgraft.steps.bakeoff import bake_off_run
from vocabgraft.steps.context import Context, Silent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An empty cache, no network, the thread count that the command line takes."""
    folder = tmp_path_factory.mktemp("home")
    threads = str(detect(folder).threads)
    return {**os.environ, "XDG_CACHE_HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads}


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def vocabgraft(environment: dict[str, str]) -> Command:
    """The command line as a process."""

    def call(*words: str | Path, limit: int | None = None) -> subprocess.CompletedProcess[str]:
        def stop_growing() -> None:
            if limit is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        program = [sys.executable, "-m", "vocabgraft", *map(str, words)]
        return subprocess.run(program, env=environment, capture_output=True, text=True, preexec_fn=stop_growing)

    return call


@pytest.fixture(scope="module")
def tied(vocabgraft: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of tiny-cpu as it ships."""
    folder = tmp_path_factory.mktemp("tied") / "run"
    said = vocabgraft("run", "tiny-cpu", "--folder", folder)
    assert said.returncode == 0, said.stderr
    return folder


def test_a_control_is_a_run_of_its_own_and_is_told_from_the_recipe(tied: Path, vocabgraft: Command) -> None:
    control = tied.parent / "control"
    said = vocabgraft("run", "tiny-cpu", "--set", "control=old-tokenizer", "--folder", control, "--until", "52-english")
    assert said.returncode == 0, said.stderr
    found = {key: Run.open(control).manifest(key) for key in ("13-expand-tokenizer", "31-stage1", "37-stage7")}
    assert found["13-expand-tokenizer"].metrics["new_pieces"] == 0
    assert found["31-stage1"].metrics["train"] == ["input.old", "output.old", "lora"]
    assert found["31-stage1"].metrics["tokens"] == 6 * 1024
    assert found["37-stage7"].metrics["train"] == []
    said = vocabgraft("compare", tied, control, "--json")
    assert said.returncode == 0, said.stderr
    sides = json.loads(said.stdout)["sides"]
    assert [s["asked"] for s in sides.values()] == [[10, 10, 10]] * 2
    ours, theirs = (read_ledger(f).manifests["51-korean"]["metrics"]["bits_per_byte"] for f in (tied, control))
    assert sides["target"]["bits"] == pytest.approx([ours["final"], theirs["final"]], abs=1e-5)


class Recorded:
    """A recipe that writes down which of its values are read."""

    def __init__(self, value: Any, path: str, seen: set[str]) -> None:
        self._value, self._path, self._seen = value, path, seen

    def __getattr__(self, name: str) -> Any:
        return self._recorded(getattr(self._value, name), name)

    def __getitem__(self, index: int) -> Any:
        return self._recorded(self._value[index], str(index))

    def __len__(self) -> int:
        return len(self._value)  # a step may ask whether its own stage is there

    def _recorded(self, value: Any, name: str) -> Any:
        path = f"{self._path}.{name}".lstrip(".")
        nested = isinstance(value, BaseModel) or (
            isinstance(value, tuple) and value and isinstance(value[0], BaseModel)
        )
        if nested:
            return Recorded(value, path, self._seen)
        self._seen.add(path)
        return value


@pytest.fixture(scope="module")
def untied(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]]]:
    """A finished run with two matrices, in this process, and which recipe values each step read."""
    seen: dict[str, set[str]] = {}

    def watched(key: str, needs: tuple[str, ...], recipe: Any, *rest: Any) -> Context:
        return Context(key, needs, Recorded(recipe, "", seen.setdefault(key, set())), *rest)

    folder = tmp_path_factory.mktemp("untied") / "run"
    run = Run.create(folder, load_recipe("tiny-cpu", ["base.tied=false"]), "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
        patch.setattr(pipeline, "Context", watched)
        assert execute(run, detect(folder)) == list(KEYS)
    return folder, seen


@pytest.fixture(scope="module")
def grown(vocabgraft: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose pieces stand after all ids, in matrices that grew."""
    folder = tmp_path_factory.mktemp("grown") / "run"
    said = vocabgraft("run", "tiny-cpu", "--set", 'tokenizer.place="append"', "--folder", folder)
    assert said.returncode == 0, said.stderr
    return folder


@pytest.fixture(scope="module")
def row_untied(vocabgraft: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tied base whose new rows have a value for each route; they begin as the base teaches them."""
    folder = tmp_path_factory.mktemp("row-untied") / "run"
    settings = ["--set", "init.row_untied=true", "--set", "init.method=distilled"]
    said = vocabgraft("run", "tiny-cpu", *settings, "--folder", folder)
    assert said.returncode == 0, said.stderr
    return folder


@pytest.fixture(scope="module", params=["tied", "untied", "grown", "row_untied"])
def finished(request: pytest.FixtureRequest) -> Path:
    """Each of the runs."""
    found = request.getfixturevalue(request.param)
    return found[0] if request.param == "untied" else found


def is_tied(folder: Path) -> bool:
    recipe = Run.open(folder).recipe
    return recipe.base.tied and not recipe.init.row_untied


def outputs(folder: Path, step: str) -> dict[str, str]:
    manifest = Run.open(folder).manifest(step)
    assert manifest is not None, step
    return {o["path"]: o["sha256"] for o in manifest.outputs}


def assert_whole(folder: Path) -> None:
    run = Run.open(folder)
    for path in folder.glob("*/manifest.json"):
        step = path.parent.name
        assert damaged_outputs(run.path(step), run.manifest(step).outputs) == [], step


# -- a whole run ----------------------------------------------------------------------------------------------------


def test_all_22_steps_are_done_and_whole(finished: Path) -> None:
    run = Run.open(finished)
    assert [r.status for r in plan(run.recipe, run)] == ["done"] * 22
    assert sorted(p.name for p in finished.iterdir() if p.is_dir()) == [*KEYS, "shards", "tensorboard"]
    assert_whole(finished)
    events = read_ledger(finished).events
    assert [e["step"] for e in events if e["event"] == "done"] == list(KEYS)


def test_a_second_run_has_nothing_to_do(tied: Path, vocabgraft: Command) -> None:
    before = {p: p.stat().st_mtime_ns for p in tied.rglob("*") if p.is_file() and p.name != "lock"}
    said = vocabgraft("run", "tiny-cpu", "--folder", tied)
    assert (said.returncode, said.stderr) == (0, "")
    assert "nothing to do" in said.stdout
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_run_says_nothing_that_is_not_its_own(vocabgraft: Command, tied: Path, tmp_path: Path) -> None:
    shutil.copytree(tied, tmp_path / "run")
    said = vocabgraft("run", "tiny-cpu", "--folder", tmp_path / "run", "--from", "61", "--json")
    assert json.loads(said.stdout)["done"] == ["61-quantize", "62-serve"]
    foreign = [line for line in said.stderr.splitlines() if not line.startswith("  0:")]
    assert foreign == []


def test_the_shipped_folder_loads_in_transformers_with_the_right_tie(finished: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shipped = finished / "61-quantize" / "model"
    model, told = AutoModelForCausalLM.from_pretrained(shipped, output_loading_info=True)
    assert not any(told[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.tie_word_embeddings is is_tied(finished)
    rows = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    assert (rows[0].data_ptr() == rows[1].data_ptr()) is is_tied(finished)
    tokenizer = AutoTokenizer.from_pretrained(shipped)
    ids = tokenizer("고혈압 환자는 소금을 줄인다.")["input_ids"]
    new = range(Run.open(finished).manifest("13-expand-tokenizer").metrics["first_new_id"], len(rows[0]))
    assert set(ids) & set(new), "no new piece is used"
    assert max(ids) < len(rows[0])
    tokens = model.generate(**tokenizer("고혈압", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert tokens.shape[1] > 1


def test_the_weights_hold_a_head_of_their_own_only_when_untied(finished: Path) -> None:
    from safetensors import safe_open

    with safe_open(finished / "61-quantize" / "model" / "model.safetensors", "pt") as f:
        assert ("lm_head.weight" in f.keys()) is not is_tied(finished)  # noqa: SIM118 (not a dict)


def test_the_shipped_folder_carries_its_notice_and_its_card(finished: Path) -> None:
    shipped = finished / "61-quantize" / "model"
    notice = (shipped / "NOTICE").read_text("utf-8")
    assert "none (random weights)" in notice
    assert "Apache-2.0" in notice
    card = (shipped / "README.md").read_text("utf-8")
    assert card.startswith("---\nlicense: ")
    for key in ("51-korean", "52-english"):  # the card quotes the verdicts
        assert Run.open(finished).manifest(key).metrics["choices"]["verdict"].split(";")[0] in card


def test_no_file_is_shipped_with_the_hashes_of_another_model(finished: Path) -> None:
    assert not list(finished.glob("*/model/sha256.json"))


@pytest.mark.parametrize("name", ["model-f16.gguf", "model-q4_1.gguf"])
def test_the_gguf_files_load_and_answer(finished: Path, name: str) -> None:
    from vocabgraft.deployment.serve import LlamaServer, new_key

    with LlamaServer(finished / "61-quantize" / name, key=new_key()) as server:
        assert len(server.complete("고혈압 환자는", max_tokens=3)["tokens"]) == 3


def test_the_english_of_a_run_keeps_its_tokens(finished: Path) -> None:
    from vocabgraft.tokenizer.measure import changed_ids, load_tokenizer

    base = Path(json.loads((finished / "01-sources" / "base.json").read_text("utf-8"))["folder"])
    english = ["The patient was given 5 mg twice a day.", "Blood pressure: 140/90 mmHg\n\n  (sitting)"]
    assert not changed_ids(load_tokenizer(base), load_tokenizer(finished / "61-quantize" / "model"), english)


def test_a_finished_run_can_be_shown_asked_and_reported(tied: Path, vocabgraft: Command) -> None:
    for words in (["report", tied], ["status", tied], ["show", tied, "41"], ["chat", tied, "--ask", "왜?"]):
        said = vocabgraft(*words, "--json")
        assert said.returncode == 0, said.stderr
        json.loads(said.stdout)


def test_every_start_can_be_tried_on_a_run(untied: tuple[Path, dict[str, set[str]]], vocabgraft: Command) -> None:
    said = vocabgraft("bakeoff", untied[0], "--seeds", "2", "--steps", "2", "--json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert json.loads((untied[0] / "bakeoff.json").read_text("utf-8")) == found
    after = [row["bpb_probe"]["mean"] for row in found["rows"]]
    assert after == sorted(after)
    assert {"random@0", "omp@0", "hybrid@0", "hybrid@0.75", "subword-mean@1"} <= {row["name"] for row in found["rows"]}
    assert all(row["english_kl"]["mean"] > 0 for row in found["rows"])
    assert_whole(untied[0])


class Stops(Silent):
    """A reporter; the training of rows is stopped after so many steps."""

    def __init__(self, after: int) -> None:
        self.steps, self._after = 0, after

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        if label != "probe" or total == 1:  # the trials'
            yield lambda n: None
            return
        yield self._step

    def _step(self, n: int) -> None:
        self.steps += n
        if self.steps == self._after:
            raise InterruptedError


def test_training_the_best_rows_goes_on_where_it_was_stopped(
    untied: tuple[Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    found, steps = [], []
    for name, after in (("whole", -1), ("stopped", 3), ("stopped", -1)):
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(untied[0], folder, ignore=shutil.ignore_patterns("bakeoff*"))
        machine, reporter = detect(folder, checkpoint_seconds=0.0), Stops(after)
        with suppress(InterruptedError):
            wanted = {"seeds": 1, "steps": 1, "trained": 2048, "reporter": reporter}
            found.append(bake_off_run(Run.open(folder), machine, ["mean"], **wanted).trained_rows_bpb)
        steps.append(reporter.steps)
    assert len(found) == 2
    assert found[0] == found[1]
    assert steps[0] > steps[1] == 3
    assert steps[2] < steps[0]
    assert not (folder / "bakeoff.trained").exists()
    for trained, wanted_steps in ((2048, 0), (1536, None)):  # known; one too short for a checkpoint
        again = Stops(-1)
        bake_off_run(Run.open(folder), detect(folder), ["mean"], seeds=1, steps=1, trained=trained, reporter=again)
        assert again.steps == wanted_steps if wanted_steps is not None else again.steps > 0


def test_every_step_reads_only_what_it_and_its_needs_declare(untied: tuple[Path, dict[str, set[str]]]) -> None:
    declared: dict[str, set[str]] = {}
    for step in STEPS:
        declared[step.key] = {*step.reads, *pipeline.HOW}.union(*(declared[n] for n in step.needs))
    undeclared = {
        key: sorted(p for p in paths if not any(f"{p}.".startswith(f"{d}.") for d in declared[key]))
        for key, paths in untied[1].items()
    }
    assert {k: v for k, v in undeclared.items() if v} == {}


def test_every_declared_value_is_read(untied: tuple[Path, dict[str, set[str]]]) -> None:
    """A value that is declared and not read would make steps stale for nothing."""
    paths = set().union(*untied[1].values())
    idle = [
        f"{step.key}: {name}"
        for step in STEPS
        for name in step.reads
        if name not in ("title",) and not any(f"{p}.".startswith(f"{name}.") for p in paths)
    ]
    assert idle == []


# -- killed anywhere ------------------------------------------------------------------------------------------------

CHECKPOINT_EVERY_STEP = """
import sys
from pathlib import Path
from vocabgraft.machine import detect
from vocabgraft.pipeline import execute
from vocabgraft.recipe import load_recipe
from vocabgraft.run import Run
folder = Path(sys.argv[1])
execute(Run.create(folder, load_recipe("tiny-cpu"), ""), detect(folder, checkpoint_seconds=0.0))
"""
# What must be there before the process is killed, and for how many seconds more it may live.
MOMENTS = (
    ("01-sources.partial", 1.5),
    ("22-initialise.partial", 3.0),
    ("31-stage1.partial/scratch/step-0000001", 0.0),
    ("34-stage4.partial/scratch/step-0000001", 0.2),
    ("36-stage6.partial", 3.0),
    ("37-stage7.partial/scratch/step-0000001", 0.1),
    ("41-instruct.partial/scratch/step-0000001", 0.0),
    ("41-instruct.partial/model", 0.3),
    ("61-quantize.partial", 2.0),
)


def kill_when(process: subprocess.Popen[bytes], path: Path, seconds: float) -> bool:
    """Kill the process a moment after a path appears; whether it was still running."""
    step = path.parent if path.parent.suffix == ".partial" else path
    done = path.parents[-1] / step.name.removesuffix(".partial")
    while process.poll() is None and not path.exists() and not done.exists():
        time.sleep(0.002)
    time.sleep(seconds)
    process.kill()
    return process.wait() == -signal.SIGKILL


def test_a_run_killed_at_many_moments_ends_in_the_same_bytes(
    tied: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    moments = random.Random(20)
    folder = tmp_path / "run"
    command = [sys.executable, "-c", CHECKPOINT_EVERY_STEP, str(folder)]
    killed, resumed = 0, 0
    for name, most in MOMENTS:
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
            killed += kill_when(process, folder / name, moments.uniform(0, most))
        resumed += any(folder.glob("*.partial/scratch/step-*/state.json"))
        assert_whole(folder)
        run = Run.open(folder)
        assert {r.status for r in plan(run.recipe, run)} <= {"done", "interrupted", "to do"}
    assert killed >= 6
    assert resumed >= 3, "too few kills left a checkpoint to go on from"
    subprocess.run(command, env=environment, check=True)
    assert_whole(folder)
    assert not (folder / "aside").exists(), "nothing had to be set aside"
    weights = "model/model.safetensors"
    assert outputs(folder, "41-instruct")[weights] == outputs(tied, "41-instruct")[weights]
    for step in KEYS[1 : KEYS.index("61-quantize")]:
        assert outputs(folder, step) == outputs(tied, step), step
    assert [p for p in folder.rglob("*") if p.name == "scratch" or ".partial" in p.name or ".tmp" in p.name] == []


# -- a full disk ----------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_late_loses_nothing(tied: Path, vocabgraft: Command, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tied, folder)
    weights = folder / "41-instruct" / "model" / "model.safetensors"
    model, gguf = weights.stat().st_size, (folder / "61-quantize" / "model-f16.gguf").stat().st_size
    assert model < gguf
    words = ["run", "tiny-cpu", "--folder", folder]
    for limit, stopped, more in (
        (model - 1000, "41-instruct", ["--from", "41"]),  # the merged model
        (gguf - 1000, "61-quantize", []),  # the first GGUF file
        (model - 1000, "61-quantize", []),  # copying the model folder
    ):
        said = vocabgraft(*words, *more, limit=limit)
        assert said.returncode == 2, said.stderr
        assert "Traceback" not in said.stderr
        assert f"{stopped}.partial" in said.stderr.splitlines()[-1]
        assert "space" in said.stderr.splitlines()[-1]
        assert not (folder / stopped).exists()
        assert_whole(folder)
    assert vocabgraft(*words).returncode == 0
    assert outputs(folder, "41-instruct") == outputs(tied, "41-instruct")
    assert_whole(folder)
