"""22 steps; a changed value makes exactly the steps stale that depend on it, and nothing stale is built upon."""

from __future__ import annotations

import shutil
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from vocabgraft import pipeline
from vocabgraft.errors import MachineError, RunError
from vocabgraft.machine import detect
from vocabgraft.pipeline import KEYS, PHASES, STEPS, dependants, execute, find_step, plan
from vocabgraft.recipe import Recipe, load_recipe
from vocabgraft.run import Run
from vocabgraft.steps.context import Context, StepResult

EXPECTED = [
    *("00-environment", "01-sources", "02-collect", "03-dictionary", "04-preprocess"),
    *("11-train-tokenizer", "12-select-pieces", "13-expand-tokenizer", "21-resize", "22-initialise"),
    *("31-stage1", "32-stage2", "33-stage3", "34-stage4", "35-stage5", "36-stage6", "37-stage7", "41-instruct"),
    *("51-korean", "52-english", "61-quantize", "62-serve"),
]

MODULE = "vocabgraft.steps.test_double"


def work(context: Context) -> StepResult:
    """Instead of a real step: write what was read from the steps before."""
    CALLS.append(context.key)
    before = [context.run.path(n, "out.txt").read_text("utf-8")[:200] for n in context.needs]
    (context.out / "out.txt").write_text(f"{context.key} from {before}\n", "utf-8")
    return StepResult({"n": len(before)})


CALLS: list[str] = []


def use_double(patch: pytest.MonkeyPatch) -> None:
    double = types.ModuleType(MODULE)
    double.work = work
    patch.setitem(sys.modules, MODULE, double)
    patch.setattr(pipeline, "STEPS", tuple(replace(s, run="test_double:work") for s in STEPS))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps that only write a file saying what they read; the list tells which ran."""
    use_double(monkeypatch)
    CALLS.clear()
    return CALLS


def recipe(*settings: str) -> Recipe:
    return load_recipe("tiny-cpu", settings)


def opened(folder: Path, *settings: str) -> Run:
    return Run.create(folder / "run", recipe(*settings), "")


def do(folder: Path, *settings: str, **options: str) -> list[str]:
    return execute(opened(folder, *settings), detect(folder), **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        use_double(patch)
        do(folder)
    return folder


@pytest.fixture
def done(finished: Path, tmp_path: Path, ran: list[str]) -> Path:
    """A folder with a finished run: nothing in it depends on where it lies."""
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path


# -- the table ------------------------------------------------------------------------------------------------------


def test_there_are_exactly_the_22_steps_in_order() -> None:
    assert list(KEYS) == EXPECTED
    assert len(set(KEYS)) == 22


def test_every_step_needs_only_earlier_ones() -> None:
    for n, step in enumerate(STEPS):
        assert set(step.needs) <= set(KEYS[:n]), step.key


def test_every_step_but_the_first_needs_something_and_all_lead_to_serving() -> None:
    needed = {need for step in STEPS for need in step.needs}
    assert [s.key for s in STEPS if not s.needs] == ["00-environment"]
    assert set(KEYS) - needed == {"62-serve"}


def test_what_a_step_reads_exists_in_every_recipe() -> None:
    for step in STEPS:
        for name in step.reads:
            recipe().section(name)


def test_every_value_of_a_recipe_is_read_by_some_step_or_said_not_to_matter() -> None:
    # Budget and control have changed values before anything reads them.
    read = {name for step in STEPS for name in step.reads} | {"budget", "control", *pipeline.HOW}
    missing = [
        f"{section}.{key}" if key else section
        for section, value in recipe().model_dump(mode="json").items()
        for key in (value if isinstance(value, dict) else [""])
        if not {section, f"{section}.{key}"} & read and section != "stage"
    ]
    assert missing == []
    assert {f"stage.{n}" for n in range(7)} <= read


def test_a_step_is_found_by_its_key_or_its_number() -> None:
    assert find_step("34-stage4").key == "34-stage4"
    assert find_step("34").key == "34-stage4"
    assert find_step("34").phase == PHASES[3] == "staged training"
    for wrong in ("3", "99", ""):
        with pytest.raises(RunError, match=f"no step '{wrong}'; the steps are 00-environment, .*62-serve"):
            find_step(wrong)


def test_dependants_are_the_step_and_all_that_build_on_it() -> None:
    assert dependants("62-serve") == ["62-serve"]
    assert dependants("52-english") == ["52-english", "61-quantize", "62-serve"]
    assert dependants("03-dictionary") == ["03-dictionary", *EXPECTED[EXPECTED.index("22-initialise") :]]
    assert dependants("00-environment") == EXPECTED


# -- the plan -------------------------------------------------------------------------------------------------------


def test_planning_imports_nothing_heavy_and_writes_nothing(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from vocabgraft.pipeline import plan\n"
        "from vocabgraft.recipe import load_recipe\n"
        "rows = plan(load_recipe('korean-gemma-270m'))\n"
        "assert {r.status for r in rows} == {'to do'}, rows\n"
        "heavy = {'torch', 'transformers', 'datasets', 'polars', 'sentencepiece', 'peft'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_run_does_all_steps_and_a_second_one_nothing(tmp_path: Path, ran: list[str]) -> None:
    assert do(tmp_path) == EXPECTED
    assert ran == EXPECTED
    ran.clear()
    assert do(tmp_path) == []
    assert ran == []
    assert {r.status for r in plan(recipe(), opened(tmp_path))} == {"done"}


def test_until_stops_after_a_step_and_the_next_run_goes_on(tmp_path: Path, ran: list[str]) -> None:
    assert do(tmp_path, until="13") == EXPECTED[:8]
    assert do(tmp_path) == EXPECTED[8:]


def test_an_interrupted_step_is_called_so(tmp_path: Path, ran: list[str]) -> None:
    do(tmp_path, until="22")
    (tmp_path / "run" / "31-stage1.partial").mkdir()
    status = {r.key: r.status for r in plan(recipe(), opened(tmp_path))}
    assert (status["22-initialise"], status["31-stage1"], status["32-stage2"]) == ("done", "interrupted", "to do")


FIRST_STALE = [
    ("base.license=other", "01-sources", "base.license was none (random weights), is now other"),
    ("data.max_bytes=1000000", "02-collect", "data.max_bytes was 200000000, is now 1000000"),
    ("data.max_unreadable=3", "02-collect", "data.max_unreadable was 0, is now 3"),
    ("data.dictionary_support=5", "03-dictionary", "data.dictionary_support was 3, is now 5"),
    ("data.near_duplicates=0.9", "04-preprocess", "data.near_duplicates was 0.8, is now 0.9"),
    ("data.min_chars=50", "04-preprocess", "data.min_chars was 40, is now 50"),
    ("data.privacy=drop", "04-preprocess", "data.privacy was replace, is now drop"),
    ("data.quality=fineweb2-kor_Hang", "04-preprocess", "data.quality was plain, is now fineweb2-kor_Hang"),
    ("data.select.recall=0.9", "04-preprocess", "data.select.recall was 0.95, is now 0.9"),
    ("data.held_out=0.2", "04-preprocess", "data.held_out was 0.15, is now 0.2"),
    ("tokenizer.pieces=210", "11-train-tokenizer", "tokenizer.pieces was 200, is now 210"),
    ("init.norm=1.0", "22-initialise", "init.norm was 0.75, is now 1.0"),
    ("data.temperature=2", "22-initialise", "data.temperature was 1.0, is now 2.0"),
    ("training.seed=2", "22-initialise", "training.seed was 1, is now 2"),
    ("training.window=64", "22-initialise", "training.window was 128, is now 64"),
    ("stage.0.tokens=2048", "31-stage1", "stage.0.tokens was 1024, is now 2048"),
    ("stage.3.lr.old=0.1", "34-stage4", "stage.3.lr.old was 1e-05, is now 0.1"),
    ("stage.6.replay_share=0.5", "37-stage7", "stage.6.replay_share was 0.2, is now 0.5"),
    ("stage.6.mix={wiki=0.5}", "37-stage7", "stage.6.mix.wiki was None, is now 0.5"),
    ("watch.every=2000000", "31-stage1", "watch.every was 1000000, is now 2000000"),
    ("lora.rank=8", "36-stage6", "lora.rank was 4, is now 8"),
    ("instruct.tokens=512", "41-instruct", "instruct.tokens was 1024, is now 512"),
    ("deploy.quantize=q8_0", "61-quantize", "deploy.quantize was q4_1, is now q8_0"),
    ("deploy.compress.samples=8", "61-quantize", "deploy.compress.samples was 256, is now 8"),
    ("deploy.question=왜?", "62-serve",
     "deploy.question was 고혈압 환자에게 권장되는 생활 습관을 알려 주세요., is now 왜?"),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "first", "reason"), FIRST_STALE)
def test_a_changed_value_makes_exactly_the_steps_stale_that_depend_on_it(
    done: Path, setting: str, first: str, reason: str
) -> None:
    rows = plan(recipe(setting), opened(done))
    stale = [r for r in rows if r.status == "stale"]
    assert stale[0].key == first
    assert stale[0].reason == reason
    assert {r.status for r in rows if r not in stale} <= {"done"}
    assert [r.key for r in stale] == dependants(first)


def test_a_value_read_in_two_places_makes_both_stale_and_nothing_between(done: Path) -> None:
    stale = [r.key for r in plan(recipe("evaluate.max_questions=5"), opened(done)) if r.status == "stale"]
    assert stale == ["51-korean", "52-english", "61-quantize", "62-serve"]
    stale = [r.key for r in plan(recipe("data.script=Han"), opened(done)) if r.status == "stale"]
    assert stale == EXPECTED[3:]


def test_how_work_is_shared_out_makes_nothing_stale(done: Path) -> None:
    rows = plan(recipe("scale.engine=ray", "scale.workers=7", "scale.time=99:00:00"), opened(done))
    assert {r.status for r in rows} == {"done"}


def test_the_steps_after_a_stale_one_name_it_as_the_reason(done: Path) -> None:
    reasons = {r.key: r.reason for r in plan(recipe("stage.3.tokens=2048"), opened(done))}
    assert reasons["35-stage5"] == "34-stage4 changed"
    assert reasons["34-stage4"] == "stage.3.tokens was 1024, is now 2048"


def test_many_changes_are_named_up_to_three_and_then_counted(done: Path) -> None:
    changed = recipe("init.norm=1.0", "init.neighbours=3", "init.temperature=0.2", "init.vector_size=8")
    reasons = {r.key: r.reason for r in plan(changed, opened(done))}
    assert reasons["22-initialise"] == (
        "init.neighbours was 10, is now 3; init.norm was 0.75, is now 1.0; init.temperature was 0.1, is now 0.2; "
        "and 1 more"
    )


def test_a_change_in_our_own_code_is_told_apart(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = tuple(replace(s, revision=s.revision + 1) if s.key == "22-initialise" else s for s in pipeline.STEPS)
    monkeypatch.setattr(pipeline, "STEPS", steps)
    stale = [r for r in plan(recipe(), opened(done)) if r.status == "stale"]
    assert [r.key for r in stale] == dependants("22-initialise")
    assert stale[0].reason == "code changed"


def test_what_a_machine_decides_makes_nothing_stale(done: Path) -> None:
    other = replace(detect(done), device="cuda", threads=64, micro_batch=1, checkpoint_seconds=1.0)
    assert execute(opened(done), other) == []


@pytest.mark.parametrize("change", ["content", "one byte of the same length", "gone"])
def test_a_source_file_that_changes_makes_01_sources_stale(tmp_path: Path, ran: list[str], change: str) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "혈압이 높다"}\n', "utf-8")
    setting = f"data.target=['{corpus}']"
    do(tmp_path, setting)
    if change == "gone":
        corpus.unlink()
    else:
        corpus.write_text('{"text": "혈압이 낮다"}\n' + "\n" * (change == "content"), "utf-8")
    stale = [r for r in plan(recipe(setting), opened(tmp_path, setting)) if r.status == "stale"]
    assert [r.key for r in stale] == dependants("01-sources")
    assert stale[0].reason.startswith(f"files.{corpus} was ")


def test_a_question_file_that_changes_makes_01_sources_stale(tmp_path: Path, ran: list[str]) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text("{}\n", "utf-8")
    setting = f"evaluate.replay_questions=['{questions}']"
    do(tmp_path, setting)
    questions.write_text('{"question": 1}\n', "utf-8")
    stale = [r for r in plan(recipe(setting), opened(tmp_path, setting)) if r.status == "stale"]
    assert stale[0].key == "01-sources"
    assert "q.jsonl was " in stale[0].reason


# -- execution ------------------------------------------------------------------------------------------------------


def test_stale_steps_are_refused_with_the_two_ways_on(done: Path, ran: list[str]) -> None:
    before = (done / "run" / "34-stage4" / "out.txt").read_bytes()
    with pytest.raises(RunError) as refused:
        do(done, "stage.3.tokens=2048")
    assert str(refused.value) == (
        "34-stage4 is stale: stage.3.tokens was 1024, is now 2048. Redo it and the 8 steps that build on it with\n"
        f"  vocabgraft run … --from 34-stage4        (the old results move to {done / 'run'}/aside)\n"
        "or keep them and work elsewhere with --folder runs/another-name"
    )
    assert ran == []
    assert (done / "run" / "34-stage4" / "out.txt").read_bytes() == before


def test_a_refused_recipe_leaves_the_run_as_it_was(done: Path) -> None:
    with pytest.raises(RunError, match="stale"):
        do(done, "stage.3.tokens=2048")
    kept = Run.open(done / "run")
    assert kept.recipe == recipe()
    assert {r.status for r in plan(kept.recipe, kept)} == {"done"}


def test_from_redoes_the_step_and_its_dependants_and_keeps_the_old_files(done: Path, ran: list[str]) -> None:
    old = (done / "run" / "34-stage4" / "out.txt").read_bytes()
    expected = dependants("34-stage4")
    assert do(done, "stage.3.tokens=2048", from_step="34") == expected
    assert ran == expected
    assert (done / "run" / "aside" / "34-stage4-1" / "out.txt").read_bytes() == old
    assert sorted(p.name for p in (done / "run" / "aside").iterdir()) == [f"{k}-1" for k in expected]
    assert do(done, "stage.3.tokens=2048") == []


def test_from_also_does_anew_what_was_interrupted(tmp_path: Path, ran: list[str]) -> None:
    do(tmp_path, until="33")
    half = opened(tmp_path).begin("34-stage4", pipeline.fingerprints(pipeline.readings(recipe()))["34-stage4"])
    (half / "old-checkpoint").write_text("x", "utf-8")
    do(tmp_path, from_step="33", until="34")
    assert not (tmp_path / "run" / "34-stage4" / "old-checkpoint").exists()
    assert (tmp_path / "run" / "aside" / "34-stage4.partial-1" / "old-checkpoint").exists()


def test_from_moves_nothing_when_an_earlier_step_is_stale(done: Path, ran: list[str]) -> None:
    with pytest.raises(RunError, match="11-train-tokenizer is stale"):
        do(done, "tokenizer.pieces=210", from_step="34")
    assert not (done / "run" / "aside").exists()
    assert ran == []


@pytest.mark.parametrize("option", ["from_step", "until"])
def test_an_unknown_step_is_refused_before_anything_moves(done: Path, ran: list[str], option: str) -> None:
    with pytest.raises(RunError, match="no step '35-stage4'"):
        do(done, **{option: "35-stage4"})
    assert not (done / "run" / "aside").exists()


def test_a_damaged_manifest_is_redone_with_from(done: Path, ran: list[str]) -> None:
    path = done / "run" / "61-quantize" / "manifest.json"
    path.write_text("{", "utf-8")
    with pytest.raises(RunError, match=r"61-quantize/manifest\.json: damaged .*--from 61-quantize"):
        do(done)
    assert do(done, from_step="61-quantize") == ["61-quantize", "62-serve"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_input_is_refused_before_it_is_used(tmp_path: Path, ran: list[str], damage: str) -> None:
    do(tmp_path, until="33")
    ran.clear()
    victim = tmp_path / "run" / "33-stage3" / "out.txt"
    if damage == "flip":
        flip(victim)
    elif damage == "truncate":
        victim.write_bytes(victim.read_bytes()[:-1])
    else:
        victim.unlink()
    with pytest.raises(
        RunError, match=r"33-stage3/out\.txt: .*redo that step with 'vocabgraft run … --from 33-stage3'"
    ):
        do(tmp_path)
    assert ran == []
    assert do(tmp_path, from_step="33-stage3") == EXPECTED[EXPECTED.index("33-stage3") :]


def test_an_input_that_is_not_done_is_refused(tmp_path: Path, ran: list[str]) -> None:
    do(tmp_path, until="22")
    run = opened(tmp_path)
    run.set_aside(run.path("04-preprocess"))
    assert do(tmp_path)[0] == "04-preprocess"  # it is simply done again
    run.set_aside(run.path("02-collect"))
    with pytest.raises(RunError, match="04-preprocess needs 02-collect, which is not done"):
        pipeline._check_inputs(find_step("04"), run)


def test_a_failing_step_publishes_nothing_and_the_next_run_continues_it(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    double = sys.modules[MODULE]
    good = double.work

    def bad(context) -> StepResult:
        if context.key == "21-resize":
            (context.out / "half").write_text("x", "utf-8")
            raise RunError("no")
        return good(context)

    monkeypatch.setattr(double, "work", bad)
    with pytest.raises(RunError, match=r"^no$"):
        do(tmp_path)
    assert not (tmp_path / "run" / "21-resize").exists()
    assert (tmp_path / "run" / "21-resize.partial" / "half").exists()
    monkeypatch.setattr(double, "work", good)
    assert do(tmp_path)[0] == "21-resize"


def test_a_full_disk_in_a_step_is_one_sentence(tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(context) -> StepResult:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules[MODULE], "work", full)
    with pytest.raises(MachineError, match=r"00-environment\.partial: no space left to write"):
        do(tmp_path)


def test_a_full_disk_between_steps_is_one_sentence(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "log", full)
    with pytest.raises(MachineError, match="no space left to write"):
        do(done, from_step="62")


def test_a_manifest_says_what_was_read_from_what_and_by_which_versions(done: Path) -> None:
    manifest = Run.open(done / "run").manifest("34-stage4")
    assert manifest is not None
    assert manifest.reads["stage.3"]["train"] == ["output.old", "output.new"]
    assert manifest.inputs == {
        n: Run.open(done / "run").manifest(n).fingerprint for n in ("33-stage3", "04-preprocess", "13-expand-tokenizer")
    }
    assert {"python", "torch", "vocabgraft"} <= set(manifest.versions)
    assert manifest.machine["threads"] >= 1
    assert [o["path"] for o in manifest.outputs] == ["out.txt"]
