"""Open a GGUF file in tenths of a second: the reader of package `gguf` takes 10 s for the tables of 262,144 pieces.

The package makes several numpy views for each element of an array. Here one array of numbers is one view, and one
array of texts is one pass over its bytes; everything else is the package's own.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vocabgraft.errors import MachineError
from vocabgraft.machine import missing_extra


def gguf_package() -> Any:
    """The package gguf. Raises MachineError without it."""
    try:
        import gguf
    except ImportError as e:
        raise missing_extra("gguf") from e
    return gguf


@contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """Yield `out.partial`; rename it to `out` when the block ends well, remove it otherwise.

    Raises MachineError for whatever the system refuses, such as a full disk.
    """
    partial = out.with_name(out.name + ".partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(out)
    except OSError as e:
        # numpy's tofile reports a full disk without errno, as "N requested and M written".
        raise MachineError(f"{out}: cannot be written ({e.strerror or e}). Check the folder and the free space.") from e
    finally:
        _remove(partial)


def finish(writer: Any, path: Path) -> None:
    """Close a writer. Raises OSError where the file is shorter than what was written: numpy's `tofile`, by which the
    package writes, loses the last kilobytes on a full disk without a word."""
    end = writer.fout[0].tell()
    writer.close()
    if path.stat().st_size < end:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the parent is no folder: nothing was written, and the first error tells more


def open_gguf(path: Path) -> Any:
    """A `gguf.GGUFReader`: `fields` (each with `contents()`) and `tensors`, mapped from the file.

    Raises OSError, ValueError, IndexError or KeyError for a file that is cut short or not GGUF.
    """
    return _reader_class()(str(path))


@cache
def _reader_class() -> Any:
    package = gguf_package()
    kinds = package.GGUFValueType

    class Reader(package.GGUFReader):  # type: ignore[misc]
        """Parts are laid out as the package lays them out, except that an array of numbers is a single part."""

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            kind, swapped = kinds(raw_type), self.byte_order != "I"
            if kind is not kinds.ARRAY or swapped:
                return super()._get_field_parts(orig_offs, raw_type)
            head = [self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)]
            item, count = kinds(head[0][0]), int(head[1][0])
            start = orig_offs + 12
            if item is kinds.STRING:
                texts = _texts(self.data.view(np.ndarray), start, count)
                parts, data = [*head, *texts], list(range(3, 2 * count + 3, 2))
            elif item in self.gguf_scalar_to_np:
                parts, data = [*head, self._get(start, self.gguf_scalar_to_np[item], count)], [2]
            else:
                return super()._get_field_parts(orig_offs, raw_type)
            return sum(int(p.nbytes) for p in parts), parts, data, [kind, item] if count else [kind]

    return Reader


def _texts(data: np.ndarray, start: int, count: int) -> list[np.ndarray]:
    """Length and bytes of each text of an array, one after the other."""
    length = struct.Struct("<Q").unpack_from
    parts = []
    for _ in range(count):
        try:
            end = start + 8 + length(data, start)[0]
        except struct.error as e:
            raise ValueError(f"cut short at byte {start:,}") from e
        parts += [data[start : start + 8], data[start + 8 : end]]
        start = end
    return parts
