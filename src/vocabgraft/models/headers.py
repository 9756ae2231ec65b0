"""Tensor names, shapes and places of a safetensors folder, read by hand: no torch, no weights in memory.

    file = 8 bytes: length N of the header, little-endian | N bytes of JSON | tensors

Format: https://huggingface.co/docs/safetensors. Reading the header alone also shows a file that was cut short,
which a model loader reports only after minutes, if at all.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

from vocabgraft.errors import ModelError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_LARGEST_HEADER = 100_000_000  # the limit of the safetensors library
_SAMPLES, _FINGERPRINT_SAMPLES, _SAMPLE_BYTES = 64, 4, 4096


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


def whole_weights(folder: Path) -> dict[str, TensorPlace]:
    """Tensors by name of the files that a model is loaded from: model.safetensors, else the shards of the index.

    Raises ModelError when one is missing, cut short or damaged.
    """
    files = {SINGLE} if (folder / SINGLE).is_file() else _shards(folder)
    tensors, problems = read_headers(folder)
    if problems:
        raise ModelError(f"{folder}: its weights are not whole: {'; '.join(problems[:3])}")
    found = {name: place for name, place in tensors.items() if place.file.name in files}
    if not found:
        raise ModelError(f"{folder}: neither {SINGLE} nor {INDEX}; a Hugging Face model folder is needed")
    return found


def _shards(folder: Path) -> set[str]:
    try:
        return set(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def fingerprint(folder: Path) -> str:
    """SHA-256 over names, types, shapes and samples of all tensors: the same for the same weights, however sharded.

    Every tensor is sampled, so another training of the same model has another fingerprint; 16 KB of each are read.
    """
    whole = hashlib.sha256()
    for name, place in sorted(whole_weights(folder).items()):
        whole.update(f"{name} {place.dtype} {list(place.shape)}\n".encode())
        with place.file.open("rb") as f:
            for at in _sample_places(place.end - place.start, _FINGERPRINT_SAMPLES):
                f.seek(place.start + at)
                whole.update(f.read(min(_SAMPLE_BYTES, place.end - place.start - at)))
    return whole.hexdigest()


def _sample_places(size: int, samples: int) -> list[int]:
    """Where samples of a tensor of so many bytes begin: the first, the last, and evenly between."""
    return [max(0, size - _SAMPLE_BYTES) * n // (samples - 1) for n in range(samples)]


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
    index = folder / INDEX
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
        for at in _sample_places(size, _SAMPLES):
            f.seek(one.start + at)
            g.seek(other.start + at)
            count = min(_SAMPLE_BYTES, size - at)
            if f.read(count) != g.read(count):
                return False
    return True
