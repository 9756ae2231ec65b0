"""Checkpoints of one stage: masters, adapters, optimiser moments, step. safetensors and JSON, never pickle.

A checkpoint is a folder renamed into place after fsync, with the SHA-256 of its tensors in `state.json`; the
one before is kept until the new one stands, and is fallen back to when the newer is damaged.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vocabgraft.durable import fsync_tree, sha256_file
from vocabgraft.training.graft import read, write


@dataclass(frozen=True)
class Snapshot:
    """Where a training stood after `step` updates."""

    step: int
    tensors: dict[str, Tensor]
    losses: list[float]
    looks: list[tuple[int, float]] = field(default_factory=list)
    """What a guard saw: (steps done, bits per byte)."""


class Checkpoints:
    """The checkpoints below one folder. seconds: how much work may be lost."""

    def __init__(self, folder: Path, seconds: float = 120.0) -> None:
        self.folder, self._seconds, self._saved = folder, seconds, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last one was written long enough ago."""
        return time.monotonic() - self._saved > self._seconds

    def save(self, snapshot: Snapshot, keep: Sequence[int] = ()) -> None:
        """Write atomically, then drop all but the previous one and those of the steps in `keep`."""
        goal = self._of(snapshot.step)
        partial = goal.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial / "tensors.safetensors", snapshot.tensors)
        state = {
            "step": snapshot.step,
            "losses": snapshot.losses,
            "looks": snapshot.looks,
            "sha256": sha256_file(partial / "tensors.safetensors"),
        }
        (partial / "state.json").write_text(json.dumps(state), "utf-8")
        fsync_tree(partial)
        shutil.rmtree(goal, ignore_errors=True)
        partial.rename(goal)
        kept = {self._of(step) for step in keep}
        for old in self._steps()[:-2]:
            if old not in kept:
                shutil.rmtree(old)
        self._saved = time.monotonic()

    def latest(self) -> Snapshot | None:
        """The newest checkpoint that is whole; None when there is none."""
        for folder in reversed(self._steps()):
            snapshot = self._read(folder)
            if snapshot is not None:
                return snapshot
        return None

    def at(self, step: int) -> Snapshot | None:
        """The checkpoint of a step, if it is there and whole."""
        return self._read(self._of(step))

    def _of(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}"

    def _steps(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("step-*") if p.suffix != ".partial")

    def _read(self, folder: Path) -> Snapshot | None:
        try:
            state: dict[str, Any] = json.loads((folder / "state.json").read_text("utf-8"))
            tensors = folder / "tensors.safetensors"
            if sha256_file(tensors) != state["sha256"]:
                return None
            looks = [(int(done), float(bits)) for done, bits in state["looks"]]
            return Snapshot(int(state["step"]), read(tensors), list(state["losses"]), looks)
        except (OSError, ValueError, TypeError, KeyError):
            return None
