"""Have tasks done: those whose receipts are true stay, the others are done by one engine or another.

embedded: in this process, or by worker processes that are sent one task after the other. A worker that dies costs the
task it had, which is done again, three times at most. local, ray, slurm: executors of datatrove
(`datatrove_engine.py`). Every engine is only asked to bring receipts about; none is asked what is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import vocabgraft
from vocabgraft.errors import MachineError, VocabgraftError
from vocabgraft.scale.tasks import Failure, Receipt, Stretch, Task, finished, perform

ATTEMPTS = 3
_WORTH_A_PROCESS = 32 << 20  # bytes to read; below, starting another Python takes longer than it saves


@dataclass(frozen=True)
class Engine:
    """Who does tasks, and how many at a time (0: as many as there are cores, at most 2)."""

    name: Literal["embedded", "local", "ray", "slurm"] = "embedded"
    workers: int = 0
    partition: str = ""
    time: str = "04:00:00"
    memory_gb: int = 2

    def workers_for(self, tasks: Sequence[Task]) -> int:
        """How many at a time; of its own accord one alone where there is little to read."""
        if self.workers == 0 and sum(_size(t.inputs) for t in tasks) < _WORTH_A_PROCESS:
            return 1
        return min(self.workers or min(2, len(os.sched_getaffinity(0))), max(1, len(tasks)))


def _size(inputs: Sequence[Stretch]) -> int:
    return sum(s.bytes for s in inputs if s.path.is_file())


ALONE = Engine(workers=1)
Done = Callable[[Task], None]
Outcome = Receipt | VocabgraftError


def bring_about(tasks: Sequence[Task], engine: Engine, on_done: Done = lambda _: None) -> list[Outcome | None]:
    """The receipt of each task, or the error that a person can mend; None for those behind such an error.

    Tasks of one folder are one task. A full disk raises OSError, a worker that cannot be kept alive MachineError.
    """
    each = {t.out: t for t in tasks}
    receipts = {out: found for out, found in zip(each, _looked_at(list(each.values())), strict=True) if found}
    for out in receipts:
        on_done(each[out])
    todo = [t for out, t in each.items() if out not in receipts]
    failures: dict[Path, Failure] = {}
    if todo:
        failures = _engine(engine, todo)(todo, engine, on_done)
        left = [t for t in todo if t.out not in failures]
        receipts |= {t.out: found for t, found in zip(left, _looked_at(left), strict=True) if found}
    errors = {out: failure.error(each[out]) for out, failure in failures.items()}
    for error in errors.values():
        if not isinstance(error, VocabgraftError):
            raise error
    missing = [t for t in todo if t.out not in receipts and t.out not in errors]
    if missing and not errors:
        raise MachineError(
            f"{missing[0].out}: no receipt, or one that is not true, after its task was done; is the disk sound?"
        )
    return [receipts.get(t.out) or errors.get(t.out) for t in tasks]  # type: ignore[misc]


def _engine(engine: Engine, todo: Sequence[Task]) -> Callable[[Sequence[Task], Engine, Done], dict[Path, Failure]]:
    if engine.name != "embedded":
        from vocabgraft.scale.datatrove_engine import by_datatrove

        return by_datatrove
    return _in_this_process if engine.workers_for(todo) == 1 else _by_workers


def _looked_at(tasks: Sequence[Task]) -> list[Receipt | None]:
    with ThreadPoolExecutor(min(4, max(1, len(tasks)))) as pool:  # hashing lets other threads run
        return list(pool.map(finished, tasks))


def _in_this_process(tasks: Sequence[Task], engine: Engine, on_done: Done) -> dict[Path, Failure]:
    for task in tasks:
        try:
            perform(task)
        except VocabgraftError as e:
            return {task.out: Failure.of(e)}
        on_done(task)
    return {}


# -- worker processes -----------------------------------------------------------------------------------------------


def start_process(module: str, *arguments: str, stderr: IO[bytes] | None = None) -> subprocess.Popen[str]:
    """Start a module of ours in a session of its own, with pipes; it is to end when its input does."""
    package = str(Path(vocabgraft.__file__).parent.parent)
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    few = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return subprocess.Popen(
        # -P: nothing in the working folder passes for a package.
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        env={**os.environ, **few, "PYTHONPATH": path},
        start_new_session=True,
    )


def _by_workers(tasks: Sequence[Task], engine: Engine, on_done: Done) -> dict[Path, Failure]:
    crew = _Crew(tasks, on_done)
    count = engine.workers_for(tasks)
    with ThreadPoolExecutor(count) as pool, crew.ended():
        for future in [pool.submit(crew.serve) for _ in range(count)]:
            future.result()
    return crew.failures


class _Crew:
    """What is left to do, shared by one thread for each worker."""

    def __init__(self, tasks: Sequence[Task], on_done: Done) -> None:
        self.left = deque(tasks)
        self._order = {t.out: n for n, t in enumerate(tasks)}
        self.failures: dict[Path, Failure] = {}
        self._on_done = on_done
        self._deaths: Counter[Path] = Counter()
        self._workers: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._over = False

    @contextlib.contextmanager
    def ended(self) -> Iterator[None]:
        """Whatever happens inside, no worker outlives it."""
        try:
            yield
        finally:
            with self._lock:
                self._over = True
                for worker in self._workers:
                    worker.kill()

    def serve(self) -> None:
        """Send tasks to a worker until none is left; a new one takes the place of one that died."""
        worker: subprocess.Popen[str] | None = None
        while (task := self._next()) is not None:
            worker = worker or self._hire()
            told = _ask(worker, task)
            if told is None:
                self._died(worker, task)
                worker = None
            elif told:
                self.failures[task.out] = Failure(**told)
            else:
                with self._lock:
                    self._on_done(task)
        if worker:
            self._dismiss(worker)

    def _next(self) -> Task | None:
        with self._lock:
            if self._over or not self.left:
                return None
            # Tasks are in order: behind one that cannot be done, none is wanted.
            behind = any(self._order[out] < self._order[self.left[0].out] for out in self.failures)
            return None if behind else self.left.popleft()

    def _hire(self) -> subprocess.Popen[str]:
        with self._lock:
            worker = start_process("vocabgraft.scale.worker")
            self._workers.add(worker)
            return worker

    def _dismiss(self, worker: subprocess.Popen[str]) -> int:
        for pipe in (worker.stdin, worker.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        code = worker.wait()
        with self._lock:
            self._workers.discard(worker)
        return code

    def _died(self, worker: subprocess.Popen[str], task: Task) -> None:
        code = self._dismiss(worker)
        with self._lock:
            if self._over:
                return
            self._deaths[task.out] += 1
            if self._deaths[task.out] >= ATTEMPTS:
                self._over = True
                raise MachineError(
                    f"{ATTEMPTS} worker processes died one after the other ({_how(code)}) on {task.out.name} "
                    f"({', '.join(s.path.name for s in task.inputs[:1])}); if memory ran out, take fewer: scale.workers"
                )
            self.left.appendleft(task)


def _ask(worker: subprocess.Popen[str], task: Task) -> dict[str, Any] | None:
    """What a worker tells of a task; None: it died."""
    try:
        worker.stdin.write(json.dumps(task.as_json()) + "\n")  # type: ignore[union-attr]
        worker.stdin.flush()  # type: ignore[union-attr]
        line = worker.stdout.readline()  # type: ignore[union-attr]
        return dict(json.loads(line)) if line.endswith("\n") else None
    except (OSError, ValueError):
        return None


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
