"""Engines: the same bytes whoever does the work, workers that die, and errors told in the order of the sources."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vocabgraft.errors import DataError, MachineError, ProofError
from vocabgraft.scale import engines
from vocabgraft.scale.engines import Engine, bring_about
from vocabgraft.scale.tasks import Stretch, Task


def tasks(folder: Path, *, files: int = 5, lines: int = 200, bad: tuple[int, ...] = ()) -> list[Task]:
    found = []
    for n in range(files):
        path = folder / f"{n}.jsonl"
        if n in bad:
            path = folder / f"{n}.jsonl.gz"
            path.write_bytes(b"\x1f\x8b\x08 no archive")
        elif not path.exists():
            path.write_text("".join('{"text": "%d-%d: 혈압이 높다."}\n' % (n, i) for i in range(lines)), "utf-8")
        settings = {"path": str(path), "source": "s", "license": "l", "language": "ko", "max_bytes": 10**9}
        out = folder / "tasks" / str(n)
        settings["max_unreadable"] = 0
        found.append(Task("vocabgraft.steps.reading:read", 1, settings, (Stretch(path),), out))
    return found


def outputs(found: list) -> list:
    return [(r["outputs"], r["tally"]) for r in found]


def workers_below(pid: int) -> list[int]:
    """The worker processes that a process has started."""
    children = [int(c) for t in Path(f"/proc/{pid}/task").glob("*/children") for c in t.read_text("utf-8").split()]
    return [c for c in children if b"scale.worker" in Path(f"/proc/{c}/cmdline").read_bytes()]


def test_the_same_bytes_whatever_the_number_of_workers(tmp_path: Path) -> None:
    wanted = outputs(bring_about(tasks(tmp_path), Engine(workers=1)))
    for workers in (2, 4):
        again = [replace(t, out=tmp_path / str(workers) / t.out.name) for t in tasks(tmp_path)]
        assert outputs(bring_about(again, Engine(workers=workers))) == wanted


def test_a_changed_an_added_and_a_removed_input_cost_their_own_tasks_alone(tmp_path: Path) -> None:
    every = tasks(tmp_path)
    bring_about(every, Engine(workers=1))
    marks = {t.out: t.out.stat().st_ino for t in every}
    (tmp_path / "3.jsonl").write_text('{"text": "다른 글"}\n', "utf-8")
    changed = [*every[:2], *tasks(tmp_path, files=6)[3:]]
    bring_about(changed, Engine(workers=1))
    same = [t.out.name for t in changed if t.out.stat().st_ino == marks.get(t.out)]
    assert same == ["0", "1", "4"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_in_order_is_told_and_what_came_before_it_is_done(tmp_path: Path, workers: int) -> None:
    found = bring_about(tasks(tmp_path, bad=(2, 4)), Engine(workers=workers))
    assert [isinstance(o, dict) for o in found[:2]] == [True, True]
    first = next(o for o in found if not isinstance(o, dict))
    assert isinstance(first, DataError)
    assert "2.jsonl.gz is truncated or damaged" in str(first)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_of_ours_is_no_silence(tmp_path: Path, workers: int) -> None:
    wrong = [replace(t, settings={}) for t in tasks(tmp_path)]
    with pytest.raises(KeyError if workers == 1 else ProofError, match="max_bytes|please report it|language"):
        found = bring_about(wrong, Engine(workers=workers))
        raise next(o for o in found if isinstance(o, Exception))


def test_a_worker_that_dies_costs_no_more_than_its_task(tmp_path: Path) -> None:
    every, killed = tasks(tmp_path, files=8, lines=3000), []

    def kill() -> None:
        while len(killed) < 2:
            time.sleep(0.02)
            for pid in workers_below(os.getpid())[:1]:
                time.sleep(0.3)
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    found = bring_about(every, Engine(workers=2))
    while len(killed) < 2:  # all was done before the second kill
        for task in every:
            engines.perform(task)
        bring_about([replace(t, revision=2) for t in every], Engine(workers=2))
    thread.join()
    assert all(isinstance(o, dict) for o in found)
    assert workers_below(os.getpid()) == []


def test_a_task_that_no_worker_survives_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = engines.start_process

    def doomed(*words: str):
        process = started(*words)
        process.kill()
        return process

    monkeypatch.setattr(engines, "start_process", doomed)
    with pytest.raises(MachineError, match=r"3 worker processes died one after the other \(signal 9\) on \d \(\d\.jsonl\)"):
        bring_about(tasks(tmp_path), Engine(workers=2))


def test_no_worker_outlives_its_caller(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        bring_about(tasks(tmp_path, files=4, lines=100_000), Engine(workers=2))
        os._exit(0)
    while len(workers := workers_below(pid)) < 2:
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for _ in range(500):
        if not any(Path(f"/proc/{w}").exists() and b"worker" in Path(f"/proc/{w}/cmdline").read_bytes() for w in workers):
            return
        time.sleep(0.02)
    raise AssertionError("a worker is still there")


def test_one_process_does_little_work_and_two_do_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    every = tasks(tmp_path)
    assert (Engine().workers_for(every), Engine(workers=3).workers_for(every)) == (1, 3)
    monkeypatch.setattr(engines, "_WORTH_A_PROCESS", 100)
    assert Engine().workers_for(every) == 2
