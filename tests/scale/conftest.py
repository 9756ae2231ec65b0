"""Small tasks for every engine, and stand-ins for Slurm's commands."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from vocabgraft.scale.tasks import Stretch, Task


@pytest.fixture(scope="session")
def slurm() -> ModuleType:
    """slurm_stand_in.py; pytest's importlib mode has no way to import it by name."""
    spec = importlib.util.spec_from_file_location("slurm_stand_in", Path(__file__).parent / "slurm_stand_in.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tasks(tmp_path: Path) -> Callable[..., list[Task]]:
    """Tasks of step 02, one a file of short texts; those of `bad` are no archives."""

    def make(*, files: int = 5, lines: int = 200, bad: tuple[int, ...] = (), under: str = "tasks") -> list[Task]:
        found = []
        for n in range(files):
            path = tmp_path / f"{n}.jsonl{'.gz' if n in bad else ''}"
            if n in bad:
                path.write_bytes(b"\x1f\x8b\x08 no archive")
            elif not path.exists():
                path.write_text("".join(f'{{"text": "{n}-{i}: 혈압이 높다."}}\n' for i in range(lines)), "utf-8")
            settings = {"path": str(path), "source": "s", "license": "l", "language": "ko", "max_bytes": 10**9}
            settings |= {"max_unreadable": 0, "known": ""}
            out = tmp_path / under / str(n)
            found.append(Task("vocabgraft.steps.reading:read", 1, settings, (Stretch(path),), out))
        return found

    return make
