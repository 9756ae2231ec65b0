"""Tensor names, shapes and places of a safetensors folder, read by hand: no torch, no weights in memory.

    file = 8 bytes: length N of the header, little-endian | N bytes of JSON | tensors

Format: https://huggingface.co/docs/safetensors. Reading the header alone also shows a file that was cut short,
which a model loader reports only after minutes, if at all.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

_LARGEST_HEADER = 100_000_000  # the limit of the safetensors library
_SAMPLES, _SAMPLE_BYTES = 64, 4096


@dataclass(frozen=True)
class TensorPlace:
    """Where one tensor lies: `start` and `end` are byte offsets in its file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_headers(folder: Path) -> tuple[dict[str, TensorPlace], list[str]]:
    """All tensors of a folder by name, and what is wrong with its files: cut short, damaged, missing."""
    tensors: dict[str, TensorPlace] = {}
    problems: list[str] = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            tensors |= _read_header(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            problems.append(f"{path.name}: {e or type(e).__name__}")
    return tensors, problems + _missing_shards(folder, tensors)


def _read_header(path: Path) -> dict[str, TensorPlace]:
    size = path.stat().st_size
    with path.open("rb") as f:
        length = int.from_bytes(f.read(8), "little")
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise ValueError(f"no header ({size:,} bytes); download it again")
        header = json.loads(f.read(length))
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = (8 + length + int(x) for x in entry["data_offsets"])
            found[name] = TensorPlace(path, str(entry["dtype"]), tuple(entry["shape"]), start, end)
    needed = max((t.end for t in found.values()), default=size)
    if needed > size:
        raise ValueError(f"cut short: {size:,} bytes of {needed:,}; download it again")
    return found


def _missing_shards(folder: Path, tensors: dict[str, TensorPlace]) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    try:
        places: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError):
        return [f"{index.name}: not a weight index; download it again"]
    gone = sorted({shard for shard in places.values() if not (folder / shard).is_file()})
    here = sorted(n for n, shard in places.items() if shard not in gone and n not in tensors)
    return [f"{shard}: missing; download it" for shard in gone] + [f"{n}: in the index, in no file" for n in here[:3]]


def look_alike(one: TensorPlace, other: TensorPlace) -> bool:
    """Whether two tensors have the same bytes, by 64 samples spread over them."""
    size = one.end - one.start
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with one.file.open("rb") as f, other.file.open("rb") as g:
        for n in range(_SAMPLES):
            at = max(0, size - _SAMPLE_BYTES) * n // (_SAMPLES - 1)
            f.seek(one.start + at)
            g.seek(other.start + at)
            count = min(_SAMPLE_BYTES, size - at)
            if f.read(count) != g.read(count):
                return False
    return True
