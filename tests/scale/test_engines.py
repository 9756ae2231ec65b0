"""Engines: the same bytes whoever does the work, workers that die, and errors told in the order of the sources."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vocabgraft.errors import DataError, MachineError, ProofError
from vocabgraft.scale import engines
from vocabgraft.scale.engines import Engine, bring_about
from vocabgraft.scale.tasks import Task

Make = Callable[..., list[Task]]


def outputs(found: list) -> list:
    return [(r["outputs"], r["tally"]) for r in found]


def workers_below(pid: int) -> list[int]:
    """The worker processes that a process has started."""
    children = [int(c) for t in Path(f"/proc/{pid}/task").glob("*/children") for c in t.read_text("utf-8").split()]
    return [c for c in children if b"scale.worker" in Path(f"/proc/{c}/cmdline").read_bytes()]


def test_the_same_bytes_whatever_the_number_of_workers(tmp_path: Path, tasks: Make) -> None:
    wanted = outputs(bring_about(tasks(), Engine(workers=1)))
    for workers in (2, 4):
        again = tasks(under=str(workers))
        assert outputs(bring_about(again, Engine(workers=workers))) == wanted


def test_a_changed_an_added_and_a_removed_input_cost_their_own_tasks_alone(tmp_path: Path, tasks: Make) -> None:
    every = tasks()
    bring_about(every, Engine(workers=1))
    marks = {t.out: t.out.stat().st_ino for t in every}
    (tmp_path / "3.jsonl").write_text('{"text": "다른 글"}\n', "utf-8")
    changed = [*every[:2], *tasks(files=6)[3:]]
    bring_about(changed, Engine(workers=1))
    same = [t.out.name for t in changed if t.out.stat().st_ino == marks.get(t.out)]
    assert same == ["0", "1", "4"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_in_order_is_told_and_what_came_before_it_is_done(
    tmp_path: Path, tasks: Make, workers: int
) -> None:
    found = bring_about(tasks(bad=(2, 4)), Engine(workers=workers))
    assert [isinstance(o, dict) for o in found[:2]] == [True, True]
    first = next(o for o in found if not isinstance(o, dict))
    assert isinstance(first, DataError)
    assert "2.jsonl.gz is truncated or damaged" in str(first)


def test_a_fault_of_ours_is_no_silence(tmp_path: Path, tasks: Make) -> None:
    wrong = [replace(t, settings={}) for t in tasks()]
    with pytest.raises(KeyError):
        bring_about(wrong, Engine(workers=1))
    found = bring_about(wrong, Engine(workers=2))
    assert {type(o) for o in found} <= {ProofError, type(None)}
    assert "failed (KeyError: 'language'); this is a bug, please report it" in str(next(filter(None, found)))


def test_a_worker_that_dies_costs_no_more_than_its_task(
    tmp_path: Path, tasks: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, asked = engines._ask, []

    def ask_the_dead(worker: subprocess.Popen[str], task: Task) -> dict[str, str] | None:
        asked.append(task.out.name)
        if len(asked) in (1, 3):
            worker.kill()
            worker.wait()
        return ask(worker, task)

    monkeypatch.setattr(engines, "_ask", ask_the_dead)
    found = bring_about(tasks(), Engine(workers=2))
    assert all(isinstance(o, dict) for o in found)
    assert (len(asked), set(asked)) == (7, set("01234"))
    assert workers_below(os.getpid()) == []


def test_a_task_that_no_worker_survives_is_a_sentence(
    tmp_path: Path, tasks: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = engines.start_process

    def doomed(*words: str):
        process = started(*words)
        process.kill()
        return process

    monkeypatch.setattr(engines, "start_process", doomed)
    with pytest.raises(
        MachineError, match=r"3 worker processes died one after the other \(signal 9\) on \d \(\d\.jsonl\)"
    ):
        bring_about(tasks(), Engine(workers=2))


def test_no_worker_outlives_its_caller(tmp_path: Path, tasks: Make) -> None:
    pid = os.fork()
    if pid == 0:
        bring_about(tasks(files=4, lines=100_000), Engine(workers=2))
        os._exit(0)
    while len(workers := workers_below(pid)) < 2:
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for _ in range(500):
        if not any(
            Path(f"/proc/{w}").exists() and b"worker" in Path(f"/proc/{w}/cmdline").read_bytes() for w in workers
        ):
            return
        time.sleep(0.02)
    raise AssertionError("a worker is still there")


def test_one_process_does_little_work_and_two_do_much(
    tmp_path: Path, tasks: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    every = tasks()
    assert (Engine().workers_for(every), Engine(workers=3).workers_for(every)) == (1, 3)
    monkeypatch.setattr(engines, "_WORTH_A_PROCESS", 100)
    assert Engine().workers_for(every) == 2
