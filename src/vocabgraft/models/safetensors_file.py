"""Read and write safetensors files tensor by tensor: a model larger than memory can be changed and copied.

The library's own writer wants all tensors of a file at once, and a file may hold 50 GB.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from vocabgraft.models.headers import TensorPlace

_CHUNK = 1 << 24  # bytes copied at a time


def tensor_at(place: TensorPlace, name: str) -> Tensor:
    """One tensor, read from its file."""
    with safe_open(str(place.file), framework="pt") as f:
        tensor: Tensor = f.get_tensor(name)
        return tensor


def dtype_of(place: TensorPlace, name: str) -> torch.dtype:
    """A tensor's type; no more than a row of it is read."""
    with safe_open(str(place.file), framework="pt") as f:
        dtype: torch.dtype = f.get_slice(name)[:1].dtype
        return dtype


def write_tensors(path: Path, tensors: Mapping[str, TensorPlace], made: Callable[[str], Tensor | None]) -> None:
    """Write tensors of the types and shapes that `tensors` says, in the library's order: large types first, then names.

    made: what a tensor holds; None takes the bytes of its place. Only one is in memory at a time.
    """
    names = sorted(tensors, key=lambda n: (-_width(tensors[n]), n))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        place = tensors[name]
        start, end = end, end + place.end - place.start
        header[name] = {"dtype": place.dtype, "shape": list(place.shape), "data_offsets": [start, end]}
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as f:
        f.write(len(raw).to_bytes(8, "little") + raw)
        for name in names:
            tensor = made(name)
            if tensor is None:
                _copy(tensors[name], f)
            else:
                _write(tensor, tensors[name], f)
            del tensor
        f.flush()
        os.fsync(f.fileno())


def _width(place: TensorPlace) -> int:
    return (place.end - place.start) // max(place.numbers, 1)


def _write(tensor: Tensor, place: TensorPlace, to: BinaryIO) -> None:
    flat = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
    if len(flat) != place.end - place.start:
        raise ValueError(f"{len(flat)} bytes for a place of {place.end - place.start}")
    to.write(flat.numpy().data)


def _copy(place: TensorPlace, to: BinaryIO) -> None:
    left = place.end - place.start
    with place.file.open("rb") as source:
        source.seek(place.start)
        while left:
            read = source.read(min(_CHUNK, left))
            to.write(read)
            left -= len(read)
