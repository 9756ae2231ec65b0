"""Checkpoints of one stage: masters, adapters, optimiser moments, step. safetensors and JSON, never pickle.

A checkpoint is a folder renamed into place after fsync, with the SHA-256 of its tensors in `state.json`; the
one before is kept until the new one stands, and is fallen back to when the newer is damaged.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
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


class Checkpoints:
    """The checkpoints below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, snapshot: Snapshot) -> None:
        """Write atomically, then drop all but the previous one."""
        goal = self.folder / f"step-{snapshot.step:07d}"
        partial = goal.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial / "tensors.safetensors", snapshot.tensors)
        state = {
            "step": snapshot.step,
            "losses": snapshot.losses,
            "sha256": sha256_file(partial / "tensors.safetensors"),
        }
        (partial / "state.json").write_text(json.dumps(state), "utf-8")
        fsync_tree(partial)
        shutil.rmtree(goal, ignore_errors=True)
        partial.rename(goal)
        for old in self._steps()[:-2]:
            shutil.rmtree(old)

    def latest(self) -> Snapshot | None:
        """The newest checkpoint that is whole; None when there is none."""
        for folder in reversed(self._steps()):
            snapshot = self._read(folder)
            if snapshot is not None:
                return snapshot
        return None

    def _steps(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("step-*") if p.suffix != ".partial")

    def _read(self, folder: Path) -> Snapshot | None:
        try:
            state: dict[str, Any] = json.loads((folder / "state.json").read_text("utf-8"))
            tensors = folder / "tensors.safetensors"
            if sha256_file(tensors) != state["sha256"]:
                return None
            return Snapshot(int(state["step"]), read(tensors), list(state["losses"]))
        except (OSError, ValueError, KeyError):
            return None
