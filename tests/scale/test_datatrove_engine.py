"""datatrove's executors give the bytes of the embedded engine: local, Ray, Slurm; clean, and with processes killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from vocabgraft.errors import DataError, MachineError
from vocabgraft.scale import datatrove_engine
from vocabgraft.scale.engines import Engine, bring_about
from vocabgraft.scale.tasks import Task, finished

pytestmark = pytest.mark.slow
pytest.importorskip("datatrove", reason="pip install 'vocabgraft[scale]'")
Make = Callable[..., list[Task]]


def outputs(found: list) -> list:
    return [(r["outputs"], r["tally"]) for r in found]


def test_the_local_executor_gives_the_same_bytes_and_leaves_nothing_of_its_own(tmp_path: Path, tasks: Make) -> None:
    wanted = outputs(bring_about(tasks(), Engine(workers=1)))
    told: list[Task] = []
    again = tasks(under="local")
    assert outputs(bring_about(again, Engine("local", 2), told.append)) == wanted
    assert sorted(t.out.name for t in told) == sorted(t.out.name for t in again)
    assert sorted(p.name for p in (tmp_path / "local").iterdir()) == [t.out.name for t in again]


def killer(folder: Path, kills: int, every: float, over: threading.Event) -> list[int]:
    """Kill the process of a task at work, at random moments, so many times."""
    draw, killed = random.Random(0), []
    while len(killed) < kills and not over.is_set():
        time.sleep(draw.uniform(0, every))
        for mark in sorted(folder.glob("*/call-*/running/*.json"), key=lambda _: draw.random())[:1]:
            try:
                os.kill(pid := int(mark.read_text("utf-8").split()[1]), signal.SIGKILL)
                killed.append(pid)
            except (OSError, ValueError, IndexError):
                continue
    return killed


def again_and_again(tasks: list[Task], engine: Engine) -> list:
    """As a person does who is told to: three kills in a row before anything is done are a sentence."""
    for _ in range(5):
        with contextlib.suppress(MachineError):
            return bring_about(tasks, engine)
    return bring_about(tasks, engine)


@pytest.mark.parametrize(("engine", "kills"), [("local", 3), ("ray", 2)])
def test_killed_workers_change_nothing(tmp_path: Path, tasks: Make, engine: str, kills: int) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="pip install 'vocabgraft[scale]'")
    size = {"files": 6, "lines": 20_000}
    wanted = outputs(bring_about(tasks(**size), Engine(workers=1)))
    over, killed = threading.Event(), []
    thread = threading.Thread(target=lambda: killed.extend(killer(tmp_path, kills, 0.5, over)))
    thread.start()
    try:
        found = again_and_again(tasks(under=engine, **size), Engine(engine, 2, memory_gb=1))
    finally:
        over.set()
        thread.join()
    assert outputs(found) == wanted
    assert killed


def test_an_error_of_a_task_is_its_sentence(tasks: Make) -> None:
    found = bring_about(tasks(bad=(2,)), Engine("local", 2))
    (wrong,) = (o for o in found if isinstance(o, Exception))
    assert isinstance(wrong, DataError)
    assert "2.jsonl.gz is truncated or damaged" in str(wrong)


def test_a_marker_of_datatrove_is_never_asked(tasks: Make) -> None:
    every = tasks()
    bring_about(every, Engine("local", 2))
    (every[1].out / "ids").write_bytes(b"")
    assert finished(every[1]) is None
    bring_about(every, Engine("local", 1))
    assert all(map(finished, every))


@pytest.fixture
def on_slurm(slurm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer with stand-ins for Slurm's commands; gives their folder."""
    monkeypatch.setenv("PATH", slurm.install(tmp_path / "bin"))
    monkeypatch.setattr(datatrove_engine, "_ASK_SLURM_EVERY", 0.5)
    monkeypatch.setattr(datatrove_engine, "_GRACE", 1.0)
    return tmp_path / "bin"


def test_a_job_of_slurm_gives_the_same_bytes_and_its_pickle_is_gone(
    tmp_path: Path, tasks: Make, on_slurm: Path
) -> None:
    wanted = outputs(bring_about(tasks(files=2), Engine(workers=1)))
    assert outputs(bring_about(tasks(files=2, under="slurm"), Engine("slurm", partition="p"))) == wanted
    assert not [p for p in tmp_path.rglob("*") if p.suffix == ".pik" or p.name.startswith("call-")]
    assert not (on_slurm / "cancelled").exists()


def test_a_job_that_vanishes_is_a_sentence(tasks: Make, on_slurm: Path) -> None:
    (on_slurm / "sbatch").write_text("#!/bin/sh\necho Submitted batch job 7\n", "utf-8")
    with pytest.raises(
        MachineError, match=r"'slurm' ended and 2 of 2 tasks have no receipt .*run the same command again"
    ):
        bring_about(tasks(files=2), Engine("slurm", partition="p"))
    assert (on_slurm / "cancelled").read_text("utf-8") == "7 "


def test_slurm_needs_its_commands_and_a_partition(tasks: Make, on_slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MachineError, match=r"needs scale\.partition"):
        bring_about(tasks(files=1), Engine("slurm"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineError, match="there is no sbatch here"):
        bring_about(tasks(files=1), Engine("slurm", partition="p"))
