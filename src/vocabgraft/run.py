"""A run folder: one readable folder per step, a manifest that means "done", and a lock.

A step writes into `31-stage1.partial/`; its files are fsynced, the folder is renamed, and `manifest.json` is
written last. No manifest, not done. A manifest carries the fingerprint of what the step read; when that no
longer matches the recipe the step is stale, and stale results are refused, never served. Nothing that finished
is deleted: a redo moves the old folder to `aside/`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from vocabgraft.durable import fsync_folder, fsync_tree, sha256_file, write_json, write_text
from vocabgraft.errors import MachineError, RunError
from vocabgraft.recipe import Recipe, recipe_from_resolved

SCRATCH = "scratch"
"""Folder inside a partial step for checkpoints and other things that do not outlive it."""
SHARDS = "shards"
"""Folder inside a run for the tasks of steps that are cut into some; removing it costs time and nothing else."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Licence:
    """Terms of one ingredient, carried from step to step to the model card."""

    name: str
    license: str
    url: str = ""
    note: str = ""


@dataclass(frozen=True)
class Manifest:
    """The record of one finished step."""

    step: str
    title: str
    fingerprint: str
    reads: dict[str, Any]
    inputs: dict[str, str]
    outputs: list[dict[str, Any]]
    metrics: dict[str, Any]
    seconds: float
    peak_memory_gb: float
    versions: dict[str, str]
    licences: list[Licence] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    schema: int = 1

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


class Run:
    """An open run folder. `Run.open` creates or checks it; `lock` keeps a second process out."""

    def __init__(self, folder: Path, recipe: Recipe, recipe_text: str = "") -> None:
        self.folder = folder
        self.recipe = recipe
        self.recipe_text = recipe_text

    @classmethod
    def create(cls, folder: Path, recipe: Recipe, recipe_text: str) -> Run:
        """Make the folder, or reuse it. A reused one keeps its recipe until `record` puts this one in force."""
        run = cls(folder, recipe, recipe_text)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with run.lock():
                if not (folder / "recipe.resolved.json").exists():
                    run.record()
        except OSError as e:
            raise disk_error(e, folder) from e
        return run

    def record(self) -> None:
        """Put this recipe in force; the ones before it stay in the ledger. Call it under the lock."""
        path, resolved = self.folder / "recipe.resolved.json", self.recipe.model_dump(mode="json")
        try:
            if path.exists() and json.loads(path.read_text("utf-8")) == resolved:
                return
        except ValueError:
            pass  # damaged: written anew
        if self.recipe_text:
            write_text(self.folder / "recipe.toml", self.recipe_text)
        self.log("recipe", recipe=resolved)
        write_json(path, resolved)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open an existing run folder with the recipe it recorded."""
        path = folder / "recipe.resolved.json"
        if not path.is_file():
            near = ", ".join(sorted(p.parent.name for p in folder.parent.glob("*/recipe.resolved.json")))
            raise RunError(
                f"{folder}: not a run folder (no recipe.resolved.json)"
                + (f"; runs beside it: {near}" if near else "; start one with 'vocabgraft run RECIPE'")
            )
        try:
            resolved = json.loads(path.read_text("utf-8"))
        except ValueError as e:
            raise RunError(f"{path}: damaged ({e}); rerun 'vocabgraft run RECIPE' to write it anew") from e
        return cls(folder, recipe_from_resolved(resolved, str(path)))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; a dead process holds nothing (flock)."""
        path = self.folder / "lock"
        handle: TextIO
        with path.open("a+", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                handle.seek(0)
                owner = handle.read().strip() or "another process"
                raise RunError(
                    f"{self.folder}: in use by {owner}; wait for it, stop it, or use another folder with --folder"
                ) from e
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {os.uname().nodename}")
            handle.flush()
            yield

    def log(self, event: str, **values: Any) -> None:
        """Append one event to the ledger, on a line of its own even after one that a crash cut off."""
        row = json.dumps({"time": round(time.time(), 3), "event": event, **values}, ensure_ascii=False)
        with (self.folder / "events.jsonl").open("a+b") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(0, size - 1))
            start = b"\n" if size and f.read(1) != b"\n" else b""
            f.write(start + row.encode() + b"\n")

    def path(self, step: str, name: str = "") -> Path:
        """Path of a file of a finished step."""
        return self.folder / step / name if name else self.folder / step

    def manifest(self, step: str) -> Manifest | None:
        """The manifest of a finished step; None when the step is not done."""
        path = self.folder / step / "manifest.json"
        if not path.is_file():
            return None
        try:
            raw = json.loads(path.read_text("utf-8"))
            raw["licences"] = [Licence(**one) for one in raw["licences"]]
            return Manifest(**raw)
        except (ValueError, TypeError, KeyError) as e:
            raise RunError(f"{path}: damaged ({e}); redo the step with 'vocabgraft run --from {step}'") from e

    def begin(self, step: str, fingerprint: str) -> Path:
        """The partial folder to write into: an interrupted one of the same fingerprint is continued."""
        partial = self.folder / f"{step}.partial"
        done = self.folder / step
        if done.exists() and not (done / "manifest.json").exists():
            if partial.exists():
                self.set_aside(done)
            else:
                done.rename(partial)  # stopped between rename and manifest: continue it
        mark = partial / "fingerprint"
        if partial.exists() and (not mark.exists() or mark.read_text() != fingerprint):
            self.set_aside(partial)
        partial.mkdir(exist_ok=True)
        write_text(mark, fingerprint)
        return partial

    def finish(self, step: str, manifest: Manifest) -> None:
        """Publish a partial folder: fsync, rename, manifest last; only then is what resuming needs thrown away."""
        partial, done = self.folder / f"{step}.partial", self.folder / step
        fsync_tree(partial)
        partial.rename(done)
        write_json(done / "manifest.json", manifest.as_json())
        fsync_folder(done)
        fsync_folder(self.folder)
        shutil.rmtree(done / SCRATCH, ignore_errors=True)
        (done / "fingerprint").unlink(missing_ok=True)

    def set_aside(self, path: Path) -> None:
        """Move a folder out of the way without deleting it."""
        aside = self.folder / "aside"
        aside.mkdir(exist_ok=True)
        n = 1
        while (aside / f"{path.name}-{n}").exists():
            n += 1
        path.rename(aside / f"{path.name}-{n}")
        self.log("aside", path=path.name, to=f"aside/{path.name}-{n}")


def describe_outputs(folder: Path) -> list[dict[str, Any]]:
    """Path, bytes and SHA-256 of every file of a step, in path order."""
    rows = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name in {"fingerprint", "manifest.json"} or name.startswith(f"{SCRATCH}/"):
            continue
        rows.append({"path": name, "bytes": path.stat().st_size, "sha256": sha256_file(path)})
    return rows


def damaged_outputs(folder: Path, outputs: list[dict[str, Any]]) -> list[str]:
    """What no longer matches a manifest: missing files, other sizes, other bytes."""
    problems = []
    for row in outputs:
        path = folder / row["path"]
        if not path.is_file():
            problems.append(f"{path}: missing")
        elif path.stat().st_size != row["bytes"]:
            problems.append(f"{path}: {path.stat().st_size:,} bytes, the manifest says {row['bytes']:,}")
        elif sha256_file(path) != row["sha256"]:
            problems.append(f"{path}: SHA-256 differs from the manifest")
    return problems


def disk_error(e: OSError, where: Path) -> MachineError:
    """One sentence for a full disk, a read-only place or a missing right."""
    place = e.filename or where
    if isinstance(e, shutil.Error):  # several files of one copy: the reasons are texts
        reasons = [str(row[-1]) for row in e.args[0]] if isinstance(e.args[0], list) else [str(e)]
        full = any(os.strerror(n) in r for n in _FULL for r in reasons)
        e = OSError(errno.ENOSPC if full else errno.EIO, reasons[0])
    if e.errno in _FULL:
        return MachineError(
            f"{place}: no space left to write; free some disk space and run the same command again: "
            "finished steps are kept and the interrupted one continues"
        )
    if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MachineError(f"{place}: no permission to write there; choose another folder with --folder")
    if e.errno == errno.ENOENT:
        return MachineError(f"{place}: no such file or folder; check the path")
    if e.errno in (errno.ENOTDIR, errno.EEXIST):
        return MachineError(f"{place}: a file is where a folder is needed; choose another folder with --folder")
    return MachineError(f"{place}: {e.strerror or e}")
