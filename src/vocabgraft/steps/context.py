"""What a step gets and what it gives back."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from vocabgraft.machine import Machine
from vocabgraft.recipe import Recipe
from vocabgraft.run import SCRATCH, SHARDS, Licence, Run
from vocabgraft.scale.engines import Engine
from vocabgraft.team import ALONE, Team


class Reporter(Protocol):
    """How a step tells a person what it is doing."""

    def say(self, text: str) -> None:
        """One line of news."""

    def bar(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A progress bar; the callable advances it."""


class Silent:
    """A reporter that reports nothing (library use, tests)."""

    def say(self, text: str) -> None:
        """Ignore."""

    def bar(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Ignore."""
        from contextlib import nullcontext

        return nullcontext(lambda _: None)


@dataclass(frozen=True)
class Context:
    """One step about to run: recipe, run folder, where to write, on what machine."""

    key: str
    needs: tuple[str, ...]
    recipe: Recipe
    run: Run
    out: Path
    machine: Machine
    reporter: Reporter
    team: Team = ALONE

    @property
    def scratch(self) -> Path:
        """A folder for checkpoints: kept while the step is interrupted, dropped when it is done."""
        path = self.out / SCRATCH
        path.mkdir(exist_ok=True)
        return path

    @property
    def shards(self) -> Path:
        """The folder of this step's tasks, which outlives the step: what did not change is not done again."""
        path = self.run.folder / SHARDS / self.key
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def engine(self) -> Engine:
        """Who does tasks. A step may read `[scale]` undeclared: it says how, and can change no result."""
        said = self.recipe.scale
        return Engine(said.engine, said.workers, said.partition, said.time, said.memory_gb)

    def device(self) -> str:
        """Where models live: the machine's GPU when this torch can use it, else the CPU."""
        import torch

        return self.machine.device if torch.cuda.is_available() else "cpu"

    def read_json(self, step: str, name: str) -> Any:
        """A JSON output of an earlier step."""
        return json.loads(self.run.path(step, name).read_text("utf-8"))

    def base_folder(self) -> Path:
        """Hugging Face folder of the base model, as 01-sources recorded it."""
        return base_folder(self.run)


def base_folder(run: Run) -> Path:
    """Hugging Face folder of the base model of a run."""
    return Path(json.loads(run.path("01-sources", "base.json").read_text("utf-8"))["folder"])


@dataclass(frozen=True)
class StepResult:
    """Figures for the ledger, and the licences of what the step brought in."""

    metrics: dict[str, Any] = field(default_factory=dict)
    licences: list[Licence] = field(default_factory=list)
