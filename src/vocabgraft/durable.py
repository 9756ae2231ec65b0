"""Files that survive a crash: write beside, fsync, rename. And their SHA-256."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vocabgraft.errors import MachineError


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, streamed."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON value in one canonical spelling."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old or the new one, never half."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def fsync_tree(folder: Path) -> None:
    """Force every file below a folder, and the folders, to disk."""
    for root, _, files in os.walk(folder):
        for name in files:
            with (Path(root) / name).open("rb") as f:
                os.fsync(f.fileno())
        fsync_folder(Path(root))


def fsync_folder(folder: Path) -> None:
    """Force a folder's entries to disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def alone(path: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold a file for this process, after `waiting()` if another has it; a dead process holds nothing (flock)."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield `out.partial`, an empty folder; it becomes `out` when the block ends well, and is removed otherwise.

    Raises MachineError when `out` holds something already or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MachineError(f"{out} exists already; give another name")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
    try:
        partial.mkdir(parents=True)
        yield partial
        fsync_tree(partial)
        partial.replace(out)
        fsync_folder(out.parent)
    except OSError as e:
        why = f"{e.strerror or e}: {e.filename}" if e.filename else e.strerror or str(e)
        raise MachineError(f"{out}: cannot be written ({why}); check the path and the free disk space") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
