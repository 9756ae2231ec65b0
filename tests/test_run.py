"""A run folder survives whatever happens to the process, and says so when its bytes did not."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft import durable
from vocabgraft import run as run_module
from vocabgraft.durable import sha256_file, write_json, write_text
from vocabgraft.errors import MachineError, RecipeError, RunError
from vocabgraft.recipe import load_recipe
from vocabgraft.report.ledger import read_ledger
from vocabgraft.run import SCRATCH, Licence, Manifest, Run, damaged_outputs, describe_outputs, disk_error

STEP = "31-stage1"


class Killed(BaseException):
    """Stands for the end of the process at a line: nothing below it catches it."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", load_recipe("tiny-cpu"), 'name = "tiny-cpu"\n')


def manifest(folder: Path, fingerprint: str = "f1") -> Manifest:
    return Manifest(
        step=STEP,
        title="train stage 1",
        fingerprint=fingerprint,
        reads={"stage.0": {"tokens": 1}},
        inputs={},
        outputs=describe_outputs(folder),
        metrics={"loss": 1.5, "한글": "값"},
        seconds=0.1,
        peak_memory_gb=0.2,
        versions={"python": "3"},
        licences=[Licence("base", "Apache-2.0")],
    )


def finished(run: Run, fingerprint: str = "f1") -> Path:
    out = run.begin(STEP, fingerprint)
    (out / "a.bin").write_bytes(bytes(range(256)) * 8)
    (out / "model").mkdir()
    (out / "model" / "b.txt").write_text("b", "utf-8")
    run.finish(STEP, manifest(out, fingerprint))
    return run.path(STEP)


def kill_at(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> None:
    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(target, name, die)


# -- a step: partial, rename, manifest ------------------------------------------------------------------------------


def test_a_step_is_not_done_until_its_manifest_is_written(run: Run) -> None:
    out = run.begin(STEP, "f1")
    (out / "a.bin").write_bytes(b"1")
    assert out.name == f"{STEP}.partial"
    assert run.manifest(STEP) is None
    assert not run.path(STEP).exists()
    run.finish(STEP, manifest(out))
    assert not out.exists()
    assert run.manifest(STEP) is not None


def test_files_are_forced_to_disk_before_the_rename_and_the_manifest_comes_last(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync_tree, rename, write = run_module.fsync_tree, Path.rename, run_module.write_json
    monkeypatch.setattr(run_module, "fsync_tree", lambda p: (order.append("fsync"), fsync_tree(p)))
    monkeypatch.setattr(Path, "rename", lambda a, b: (order.append("rename"), rename(a, b))[1])
    monkeypatch.setattr(run_module, "write_json", lambda p, v: (order.append(p.name), write(p, v)))
    finished(run)
    assert order == ["fsync", "rename", "manifest.json"]


def test_a_manifest_comes_back_as_it_was_written(run: Run) -> None:
    finished(run)
    found = run.manifest(STEP)
    assert found is not None
    assert found.metrics == {"loss": 1.5, "한글": "값"}
    assert found.licences == [Licence("base", "Apache-2.0")]
    assert [o["path"] for o in found.outputs] == ["a.bin", "model/b.txt"]


def test_what_resuming_needed_is_gone_when_the_step_is_done(run: Run) -> None:
    out = run.begin(STEP, "f1")
    (out / SCRATCH).mkdir()
    (out / SCRATCH / "step-1").write_text("x", "utf-8")
    run.finish(STEP, manifest(out))
    assert [p.name for p in run.path(STEP).iterdir()] == ["manifest.json"]


def test_an_interrupted_step_of_the_same_fingerprint_is_continued(run: Run) -> None:
    (run.begin(STEP, "f1") / "half").write_text("kept", "utf-8")
    assert (run.begin(STEP, "f1") / "half").read_text("utf-8") == "kept"


def test_an_interrupted_step_of_another_fingerprint_is_set_aside_and_kept(run: Run) -> None:
    (run.begin(STEP, "f1") / "half").write_text("old", "utf-8")
    assert [p.name for p in run.begin(STEP, "f2").iterdir()] == ["fingerprint"]
    assert (run.folder / "aside" / f"{STEP}.partial-1" / "half").read_text("utf-8") == "old"


def test_every_folder_set_aside_gets_a_place_of_its_own(run: Run) -> None:
    for fingerprint in ("f1", "f2", "f3"):
        (run.begin(STEP, fingerprint) / "half").write_text(fingerprint, "utf-8")
    kept = sorted((run.folder / "aside").glob("*/half"))
    assert [p.read_text("utf-8") for p in kept] == ["f1", "f2"]


@pytest.mark.parametrize("place", ["fsync_tree", "write_json", "fsync_folder"])
def test_a_step_stopped_while_finishing_is_continued_with_its_checkpoints(
    run: Run, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    out = run.begin(STEP, "f1")
    (out / "a.bin").write_bytes(b"1")
    (out / SCRATCH).mkdir()
    (out / SCRATCH / "step-7").write_text("checkpoint", "utf-8")
    with monkeypatch.context() as patch:
        kill_at(patch, run_module, place)
        with pytest.raises(Killed):
            run.finish(STEP, manifest(out))
    if run.manifest(STEP) is None:
        again = run.begin(STEP, "f1")
        assert (again / SCRATCH / "step-7").exists()
        run.finish(STEP, manifest(again))
    found = run.manifest(STEP)
    assert found is not None
    assert damaged_outputs(run.path(STEP), found.outputs) == []
    assert not (run.folder / "aside").exists()


def test_a_step_stopped_between_rename_and_manifest_is_not_continued_for_another_fingerprint(run: Run) -> None:
    (run.begin(STEP, "f1") / "half").write_text("old", "utf-8")
    (run.folder / f"{STEP}.partial").rename(run.path(STEP))
    assert [p.name for p in run.begin(STEP, "f2").iterdir()] == ["fingerprint"]
    assert (run.folder / "aside" / f"{STEP}.partial-1" / "half").read_text("utf-8") == "old"


def test_a_folder_without_manifest_does_not_stand_in_the_way_of_a_partial_one(run: Run) -> None:
    run.path(STEP).mkdir()
    (run.path(STEP) / "stray").write_text("x", "utf-8")
    (run.folder / f"{STEP}.partial").mkdir()
    run.finish(STEP, manifest(run.begin(STEP, "f1")))
    assert (run.folder / "aside" / f"{STEP}-1" / "stray").exists()


# -- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"licences": [{"colour": 1}]}', '{"licences": []}', '{"step": "x", "licences": 3}']
)
def test_a_damaged_manifest_is_named_with_the_command_that_redoes_the_step(run: Run, text: str) -> None:
    finished(run)
    (run.path(STEP) / "manifest.json").write_text(text, "utf-8")
    with pytest.raises(RunError, match=rf"manifest\.json: damaged .*--from {STEP}"):
        run.manifest(STEP)


def test_a_manifest_of_other_bytes_than_utf8_is_damaged(run: Run) -> None:
    finished(run)
    (run.path(STEP) / "manifest.json").write_bytes(b'{"step": "\xff"}')
    with pytest.raises(RunError, match="damaged"):
        run.manifest(STEP)


def test_whole_outputs_have_no_problem(run: Run) -> None:
    folder = finished(run)
    assert damaged_outputs(folder, run.manifest(STEP).outputs) == []


def test_missing_truncated_and_flipped_outputs_are_each_told(run: Run) -> None:
    out = run.begin(STEP, "f1")
    for name in ("missing", "short", "flipped", "whole"):
        (out / name).write_bytes(b"0123456789")
    run.finish(STEP, manifest(out))
    folder = run.path(STEP)
    (folder / "missing").unlink()
    (folder / "short").write_bytes(b"01234")
    (folder / "flipped").write_bytes(b"0123456798")
    assert damaged_outputs(folder, run.manifest(STEP).outputs) == [
        f"{folder / 'flipped'}: SHA-256 differs from the manifest",
        f"{folder / 'missing'}: missing",
        f"{folder / 'short'}: 5 bytes, the manifest says 10",
    ]


@given(where=st.integers(0, 2047), bit=st.integers(0, 7))
def test_any_single_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, where: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("flip")
    content = bytearray(range(256)) * 8
    (folder / "a").write_bytes(content)
    outputs = describe_outputs(folder)
    content[where] ^= 1 << bit
    (folder / "a").write_bytes(content)
    assert damaged_outputs(folder, outputs) == [f"{folder / 'a'}: SHA-256 differs from the manifest"]


def test_a_folder_that_is_no_run_names_the_runs_beside_it(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run folder.*runs beside it: run"):
        Run.open(run.folder.parent / "rum")
    with pytest.raises(RunError, match="start one with 'vocabgraft run RECIPE'"):
        Run.open(tmp_path / "nothing" / "here")


# -- the recipe in force --------------------------------------------------------------------------------------------


def test_a_run_opens_with_the_recipe_it_recorded(run: Run) -> None:
    assert Run.open(run.folder).recipe == run.recipe


def test_a_damaged_recorded_recipe_is_refused_when_opened_and_written_anew_when_run(run: Run) -> None:
    path = run.folder / "recipe.resolved.json"
    path.write_text('{"name": ', "utf-8")
    with pytest.raises(RunError, match=r"recipe\.resolved\.json: damaged"):
        Run.open(run.folder)
    Run.create(run.folder, run.recipe, "").record()
    assert Run.open(run.folder).recipe == run.recipe


def test_a_recorded_recipe_that_is_no_longer_valid_is_refused(run: Run) -> None:
    write_json(run.folder / "recipe.resolved.json", {"name": "x"})
    with pytest.raises(RecipeError, match="missing"):
        Run.open(run.folder)


def test_opening_a_folder_with_another_recipe_changes_nothing_until_it_is_put_in_force(run: Run) -> None:
    other = load_recipe("tiny-cpu", ["tokenizer.pieces=210"])
    again = Run.create(run.folder, other, "text")
    assert Run.open(run.folder).recipe == run.recipe
    again.record()
    assert Run.open(run.folder).recipe == other
    recipes = [e["recipe"]["tokenizer"]["pieces"] for e in read_ledger(run.folder).events if e["event"] == "recipe"]
    assert recipes == [run.recipe.tokenizer.pieces, 210]


# -- the lock -------------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from vocabgraft.run import Run
with Run(Path(sys.argv[1]), None).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(run: Run):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run.folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(run: Run, holder: subprocess.Popen) -> None:
    with pytest.raises(RunError, match=rf"in use by process {holder.pid} on .*--folder"), run.lock():
        pass
    with pytest.raises(RunError, match=f"process {holder.pid}"):
        Run.create(run.folder, run.recipe, "")


def test_a_killed_process_holds_nothing(run: Run, holder: subprocess.Popen) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with run.lock():
        assert f"process {os.getpid()} " in (run.folder / "lock").read_text("utf-8")


def test_the_lock_is_free_again_after_use(run: Run) -> None:
    for _ in range(2):
        with run.lock():
            pass


# -- the ledger -----------------------------------------------------------------------------------------------------


def events(run: Run) -> list[str]:
    return [json.loads(line)["event"] for line in (run.folder / "events.jsonl").read_text("utf-8").splitlines()]


def test_events_are_one_json_object_a_line(run: Run) -> None:
    run.log("start", step=STEP, note="한글\nzwei")
    assert events(run) == ["recipe", "start"]


@pytest.mark.parametrize("torn", [b'{"time": 1, "ev', "{'한".encode()[:-1], b"x"])
def test_an_event_after_a_torn_line_starts_a_line_of_its_own(run: Run, torn: bytes) -> None:
    path = run.folder / "events.jsonl"
    before = path.read_bytes()
    path.write_bytes(before + torn)
    run.log("start")
    run.log("done")
    assert path.read_bytes().startswith(before + torn + b"\n")
    assert [e["event"] for e in read_ledger(run.folder).events] == ["recipe", "unreadable", "start", "done"]


def test_a_ledger_that_ends_well_gets_no_empty_line(run: Run) -> None:
    (run.folder / "events.jsonl").unlink()
    run.log("a")
    run.log("b")
    assert events(run) == ["a", "b"]


# -- durable files --------------------------------------------------------------------------------------------------


def test_a_crash_while_writing_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.txt"
    write_text(path, "old\n")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            kill_at(patch, durable.os if name == "fsync" else Path, name)
            with pytest.raises(Killed):
                write_text(path, "new\n" * 1000)
        assert path.read_text("utf-8") == "old\n"
    write_text(path, "new\n")
    assert path.read_text("utf-8") == "new\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file_whenever_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    program = (
        "import sys; from pathlib import Path; from vocabgraft.durable import write_text\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    write_text(Path(sys.argv[1]), f'{n}\\n' * 20000)\n"
    )
    for delay in (0.02, 0.05, 0.11):
        writer = subprocess.Popen([sys.executable, "-c", program, str(path)])
        deadline = time.monotonic() + 300
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        writer.kill()
        writer.wait()
        lines = path.read_text("utf-8").splitlines()
        assert len(lines) == 20000
        assert len(set(lines)) == 1


def test_text_is_written_as_it_is_on_every_system(tmp_path: Path) -> None:
    write_text(tmp_path / "f", "한\n글\n")
    assert (tmp_path / "f").read_bytes() == "한\n글\n".encode()
    assert sha256_file(tmp_path / "f") == sha256_file(tmp_path / "f")


# -- the disk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_called_so_and_promises_to_continue(number: int) -> None:
    told = str(disk_error(OSError(number, os.strerror(number)), Path("/runs/a")))
    assert told.startswith("/runs/a: no space left to write")
    assert "run the same command again" in told


def test_a_full_disk_in_the_middle_of_copying_a_folder_is_called_so(tmp_path: Path) -> None:
    copies = [("a", "b", f"[Errno 28] {os.strerror(errno.ENOSPC)}: 'b'")]
    assert "no space left" in str(disk_error(shutil.Error(copies), tmp_path))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_missing_right_is_called_so(number: int) -> None:
    told = disk_error(OSError(number, os.strerror(number), "/runs/a/x"), Path("/runs/a"))
    assert isinstance(told, MachineError)
    assert str(told) == "/runs/a/x: no permission to write there; choose another folder with --folder"


def test_a_file_in_the_place_of_a_folder_is_called_so(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(MachineError, match=r"a file is where a folder is needed.*--folder"):
            Run.create(folder, run.recipe, "")
