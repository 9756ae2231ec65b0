"""Tasks through the executors of datatrove: this computer's cores, Ray, Slurm. No other module knows datatrove.

An executor runs in a process of its own: what it does to environment, logs and signals stays there, and where it hangs
(a pool waits for ever for a worker that was killed) it is ended and begun again. All it is asked for is to call
`perform_rank` for every rank. Its folder of logs and markers is new for each call and removed afterwards, and with it
the pickle of itself that its Slurm executor writes for the jobs it starts; nothing of ours reads one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from vocabgraft.durable import write_json, write_text
from vocabgraft.errors import MachineError
from vocabgraft.machine import missing_extra
from vocabgraft.scale.engines import ATTEMPTS, Engine, start_process
from vocabgraft.scale.tasks import RECEIPT, Failure, Task, finished
from vocabgraft.scale.worker import attempt, end_with_caller

_LOOK_EVERY = 0.2  # seconds between two looks at what is done
_STALLED = 60.0  # seconds in which a local pool with nothing at work is taken to be stuck
_ASK_SLURM_EVERY = 10.0
_GRACE = 15.0  # seconds that a receipt may take to be seen on a shared disk after its job has ended


def by_datatrove(tasks: Sequence[Task], engine: Engine, on_done: Callable[[Task], None]) -> dict[Path, Failure]:
    """Have every task done, and tell which could not be."""
    for package in ("datatrove", *(["ray"] if engine.name == "ray" else [])):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package)
    if engine.name == "slurm" and not shutil.which("sbatch"):
        raise MachineError(
            "scale.engine is 'slurm', but there is no sbatch here; start on a login node, or take another engine"
        )
    if engine.name == "slurm" and not engine.partition:
        raise MachineError("scale.engine 'slurm' needs scale.partition: where its jobs are to be sent")
    left, fruitless = list(tasks), 0
    failures: dict[Path, Failure] = {}
    while left:
        with _Call(left, engine, on_done) as call:
            call.wait_for_jobs() if engine.name == "slurm" else call.wait()
            failures |= call.failures()
            last_word = call.last_word()
        # Tasks are in order: behind one that cannot be done, none is wanted.
        wanted = next((n for n, t in enumerate(tasks) if t.out in failures), len(tasks))
        before, left = len(left), [t for t in tasks[:wanted] if not finished(t)]
        fruitless = 0 if len(left) < before else fruitless + 1
        if left and (fruitless >= ATTEMPTS or (engine.name == "slurm" and not failures)):
            raise MachineError(
                f"scale.engine '{engine.name}' ended {'' if engine.name == 'slurm' else f'{ATTEMPTS} times '}and "
                f"{len(left)} of {len(tasks)} tasks have no receipt (last word: {last_word or 'none'}); "
                "what is done stays done: run the same command again, or take another engine"
            )
    return failures


class _Call:
    """One run of an executor: a private folder with its tasks, and the process that runs it."""

    def __init__(self, tasks: Sequence[Task], engine: Engine, on_done: Callable[[Task], None]) -> None:
        self._tasks, self._engine, self._on_done = list(tasks), engine, on_done
        self._told: set[Path] = set()
        self._jobs = ""
        tasks[0].out.parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="call-", dir=tasks[0].out.parent)).resolve()

    def __enter__(self) -> _Call:
        for name in ("tasks", "running", "failures"):
            (self.folder / name).mkdir()
        for rank, task in enumerate(self._tasks):
            where = {"out": str(task.out.resolve())}
            write_json(self.folder / "tasks" / _name(rank), task.as_json() | where)
        workers = self._engine.workers or (
            -1 if self._engine.name != "local" else self._engine.workers_for(self._tasks)
        )
        write_json(self.folder / "engine.json", asdict(self._engine) | {"workers": workers, "tasks": len(self._tasks)})
        self._log = (self.folder / "engine.log").open("wb")
        self._process = start_process("vocabgraft.scale.datatrove_engine", str(self.folder), stderr=self._log)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        self._process.wait()
        if self._jobs and not self._all_told():
            subprocess.run(["scancel", self._jobs], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait(self) -> None:
        """Until the executor has ended, or a process of it was lost and it would wait for ever."""
        moved = time.monotonic()
        while self._process.poll() is None:
            running = self._running()
            if self._look() or running:
                moved = time.monotonic()
            stuck = self._engine.name == "local" and time.monotonic() - moved > _STALLED
            if stuck or any(not _alive(pid) and mark.exists() for mark, pid in running):
                return
            time.sleep(_LOOK_EVERY)
        self._look()

    def wait_for_jobs(self) -> None:
        """Until every task has a receipt or a failure, or Slurm no longer knows the job."""
        if self._process.wait() != 0:
            return
        self._jobs = (self.folder / "jobs").read_text("utf-8")
        asked, gone = time.monotonic(), 0.0
        while not self._all_told() and not any((self.folder / "failures").iterdir()):
            self._look()
            now = time.monotonic()
            if gone and now - gone > _GRACE:
                return
            if not gone and now - asked > _ASK_SLURM_EVERY:
                asked, gone = now, now if _gone(self._jobs) else 0.0
            time.sleep(_LOOK_EVERY)

    def failures(self) -> dict[Path, Failure]:
        """What could not be done, by the folder of its task."""
        found = {path.name: json.loads(path.read_text("utf-8")) for path in (self.folder / "failures").iterdir()}
        return {t.out: Failure(**found[_name(n)]) for n, t in enumerate(self._tasks) if _name(n) in found}

    def last_word(self) -> str:
        """The last line that executor or job wrote."""
        logs = [self.folder / "engine.log", *sorted(self.folder.glob("logs/slurm_logs/*.out"))]
        lines = [line.strip() for log in logs for line in log.read_text("utf-8", "replace").splitlines()]
        return next((line[:200] for line in reversed(lines) if line), "")

    def _look(self) -> bool:
        """Tell of every task that has got its receipt; whether there was one."""
        new = [t for t in self._tasks if t.out not in self._told and (t.out / RECEIPT).is_file()]
        for task in new:
            self._told.add(task.out)
            self._on_done(task)
        return bool(new)

    def _all_told(self) -> bool:
        return len(self._told) == len(self._tasks)

    def _running(self) -> list[tuple[Path, int]]:
        """The marks of tasks at work on this computer, each with its process."""
        found = []
        for mark in (self.folder / "running").iterdir():
            with contextlib.suppress(OSError, ValueError):
                host, pid = mark.read_text("utf-8").split()
                found += [(mark, int(pid))] if host == socket.gethostname() else []
        return found


def _name(rank: int) -> str:
    return f"{rank:06d}.json"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _gone(jobs: str) -> bool:
    """Whether Slurm has none of the jobs any more; no answer is no sign of that."""
    found = subprocess.run(["squeue", "-h", "-j", jobs, "-o", "%T"], capture_output=True, text=True, check=False)
    return not found.stdout.strip() if found.returncode == 0 else "Invalid job id" in found.stderr


# -- in the executor's process and its workers ----------------------------------------------------------------------


def perform_rank(data: Any, rank: int, world_size: int, *, folder: str) -> None:
    """What an executor calls for each rank: do its task, and leave a word where that cannot be."""
    here = Path(folder)
    mark = here / "running" / _name(rank)
    write_text(mark, f"{socket.gethostname()} {os.getpid()}")
    if failure := attempt(Task.from_json(json.loads((here / "tasks" / _name(rank)).read_text("utf-8")))):
        write_json(here / "failures" / _name(rank), asdict(failure))
    mark.unlink()


def main() -> None:
    """Run the executor that a call's folder asks for."""
    folder = Path(sys.argv[1])
    end_with_caller(end=lambda: os.killpg(0, signal.SIGKILL))
    said = json.loads((folder / "engine.json").read_text("utf-8"))
    common = {
        "pipeline": [partial(perform_rank, folder=str(folder))],
        "tasks": said["tasks"],
        "workers": said["workers"],
        "logging_dir": str(folder / "logs"),
        "skip_completed": False,
    }
    {"local": _local, "ray": _ray, "slurm": _slurm}[said["name"]](common, said, folder)


def _local(common: dict[str, Any], said: dict[str, Any], folder: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor

    LocalPipelineExecutor(**common).run()


def _ray(common: dict[str, Any], said: dict[str, Any], folder: Path) -> None:
    import ray
    from datatrove.executor import RayPipelineExecutor

    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        cores = said["workers"] if said["workers"] > 0 else len(os.sched_getaffinity(0))
        ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
    RayPipelineExecutor(**common, mem_per_cpu_gb=said["memory_gb"]).run()


def _slurm(common: dict[str, Any], said: dict[str, Any], folder: Path) -> None:
    from datatrove.executor.slurm import SlurmPipelineExecutor

    # The job that adds statistics up would stay in the queue where a task fails. (Jobs load the class as it was.)
    SlurmPipelineExecutor.launch_merge_stats = lambda self: write_text(folder / "jobs", str(self.job_id))
    paths = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": os.environ["PYTHONPATH"]}
    settings = " ".join(f"{name}={shlex.quote(value)}:${name}" for name, value in paths.items())
    SlurmPipelineExecutor(
        **common,
        time=said["time"],
        partition=said["partition"],
        mem_per_cpu_gb=said["memory_gb"],
        job_name="vocabgraft",
        qos=None,
        env_command=f"export {settings}",
        with_srun=False,
    ).run()


if __name__ == "__main__":
    # By its name, so that what is sent to workers is not taken for a part of __main__.
    from vocabgraft.scale import datatrove_engine

    datatrove_engine.main()
