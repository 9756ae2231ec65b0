"""Files that survive a crash: write beside, fsync, rename. And their SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, streamed."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


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
