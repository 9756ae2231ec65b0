"""A task: a pure function of files and settings; and its receipt, which alone says that it is done.

A task writes into a folder of its own beside the one it is to fill. Its receipt is written last: SHA-256 of what was
read and of what was written, the function and its revision, the settings, and what the function told (its tally). Then
the folder gets its name. So a folder holds all of a task or is not there, and a receipt that does not match in every
part (another input, a flipped bit) means that the task is done again. No marker of an engine is ever asked.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import shutil
import unicodedata
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocabgraft import __version__, errors
from vocabgraft.durable import digest, fsync_folder, fsync_tree, sha256_file, write_json
from vocabgraft.errors import DataError, MachineError, ProofError, VocabgraftError

RECEIPT = "receipt.json"
Receipt = dict[str, Any]
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Stretch:
    """A file, or the bytes of it from `start` on; `sha256` where someone knows it already."""

    path: Path
    start: int = 0
    size: int | None = None
    sha256: str = ""

    def read(self) -> bytes:
        """The bytes; DataError where they are not those of `sha256`."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            content = file.read(-1 if self.size is None else self.size)
        if self.sha256 and hashlib.sha256(content).hexdigest() != self.sha256:
            raise DataError(f"{self.path} is not what it was when the step before wrote it; redo that step")
        return content

    def digest(self) -> str:
        """SHA-256, taken now unless it is known."""
        return self.sha256 or sha256_file(self.path)

    @property
    def bytes(self) -> int:
        """How many."""
        return self.path.stat().st_size if self.size is None else self.size


@dataclass(frozen=True)
class Task:
    """`function` ('module:name') is called with settings, inputs and a folder to write to; it returns its tally.

    The tally and the settings are of JSON types. Raise `revision` when the function starts to give other results.
    """

    function: str
    revision: int
    settings: Mapping[str, Any]
    inputs: tuple[Stretch, ...]
    out: Path

    def as_json(self) -> dict[str, Any]:
        """Plain values for another process."""
        inputs = [{"path": str(s.path), "start": s.start, "size": s.size, "sha256": s.sha256} for s in self.inputs]
        return {
            "function": self.function,
            "revision": self.revision,
            "settings": dict(self.settings),
            "inputs": inputs,
            "out": str(self.out),
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Task:
        """Back from `as_json`."""
        inputs = tuple(Stretch(**{**row, "path": Path(row["path"])}) for row in raw["inputs"])
        return cls(**{**raw, "inputs": inputs, "out": Path(raw["out"])})


def perform(task: Task) -> None:
    """Do a task and leave its folder with a receipt, or nothing."""
    module, _, name = task.function.partition(":")
    function: Callable[[dict[str, Any], Sequence[Stretch], Path], dict[str, Any]] = getattr(
        importlib.import_module(module), name
    )
    identity = _identity(task)
    before = [_mark(s.path) for s in task.inputs]
    partial = task.out.with_name(f"{task.out.name}.partial-{uuid.uuid4().hex[:12]}")
    partial.mkdir(parents=True)
    try:
        tally = function(dict(task.settings), task.inputs, partial)
        for stretch, mark in zip(task.inputs, before, strict=True):
            if _mark(stretch.path) != mark:
                raise DataError(f"{stretch.path} changed while it was read; run the same command again")
        receipt = {**identity, "outputs": _outputs(partial), "tally": tally}
        fsync_tree(partial)
        write_json(partial / RECEIPT, {**receipt, "seal": digest(receipt)})
        fsync_folder(partial)
        _publish(partial, task.out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def finished(task: Task) -> Receipt | None:
    """The receipt of a task if everything in it is true: inputs, code, settings, and each output, byte for byte."""
    try:
        receipt: Receipt = json.loads((task.out / RECEIPT).read_text("utf-8"))
        seal = receipt.pop("seal")
        told = receipt["outputs"]
        if seal != digest(receipt) or {k: receipt[k] for k in _IDENTITY} != _identity(task):
            return None
        return receipt if told == _outputs(task.out, [row["path"] for row in told]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def discard(folder: Path) -> None:
    """Remove a task's folder at once: no moment leaves a part of it under its name."""
    aside = folder.with_name(f"{folder.name}.old-{uuid.uuid4().hex[:12]}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: Path, keep: set[Path]) -> None:
    """Remove what is in a folder of tasks and not among `keep`: what was killed, what is of files no longer there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path not in keep:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


_IDENTITY = ("function", "revision", "settings", "inputs", "made_with")


def _identity(task: Task) -> dict[str, Any]:
    inputs = [{"bytes": s.bytes, "sha256": s.digest()} for s in task.inputs]
    # What a letter is changes with Python's tables.
    made_with = {"vocabgraft": __version__, "unicode": unicodedata.unidata_version}
    settings = json.loads(json.dumps(dict(task.settings)))
    return dict(zip(_IDENTITY, (task.function, task.revision, settings, inputs, made_with), strict=True))


def _outputs(folder: Path, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    names = sorted(p.name for p in folder.iterdir()) if names is None else names
    return [{"path": n, "bytes": (folder / n).stat().st_size, "sha256": sha256_file(folder / n)} for n in names]


def _mark(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _publish(partial: Path, out: Path) -> None:
    discard(out)
    try:
        partial.rename(out)
    except OSError as e:
        # Another process did the same task meanwhile (a job nobody waits for any more): its folder is as good.
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    fsync_folder(out.parent)


# -- what went wrong, told to another process -----------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """Why a task could not be done, in JSON types."""

    kind: str
    text: str
    number: int | None = None
    place: str | None = None

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """What to tell of an error."""
        if isinstance(error, OSError):
            return cls("OSError", error.strerror or str(error), error.errno, os.fsdecode(error.filename or "") or None)
        return cls(type(error).__name__, str(error))

    def error(self, task: Task) -> Exception:
        """The error to raise here."""
        if self.kind == "OSError":
            return OSError(self.number or errno.EIO, self.text, self.place)
        kind = getattr(errors, self.kind, None)
        if isinstance(kind, type) and issubclass(kind, VocabgraftError):
            found = kind.__new__(kind)
            found.args = (self.text,)
            return found
        if self.kind == "MemoryError":
            return MachineError(f"{task.out.name}: memory ran out; take fewer workers: scale.workers")
        return ProofError(f"{task.function} failed ({self.kind}: {self.text}); this is a bug, please report it")
