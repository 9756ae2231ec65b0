"""Read the weights of a compressed folder as they are stored, and put them into a live model to measure them.

The format is compressed-tensors' `pack-quantized`, which vLLM loads: integers of 4 or 8 bits packed into int32 words
along the input, lowest bits first, each less half its range; a scale (and a zero point, packed along the output) for
every group of columns. A weight is (q - zero) * scale. AWQ also changes norms and layers before others, so every
tensor of the folder is put in, not the packed ones alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vocabgraft.errors import ModelError
from vocabgraft.training.graft import config_of

_PACKED, _BESIDE = ".weight_packed", (".weight_scale", ".weight_zero_point", ".weight_shape")
_NESTING = re.compile(r"^(?:(?:language_)?model\.)+")  # transformers and its files nest a multimodal decoder otherwise
_LAYER = re.compile(r"layers\.\d+\.")


def unpack(words: Tensor, bits: int, count: int) -> Tensor:
    """Signed integers (rows, count) from int32 words (rows, ceil(count * bits / 32)); bits: 4 or 8."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    values = (words.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)
    return values.flatten(1)[:, :count] - (1 << (bits - 1))


def dequantised(words: Tensor, scale: Tensor, zero: Tensor | None, *, bits: int, columns: int, group: int) -> Tensor:
    """A weight (rows, columns) in float32; scale (rows, groups), zero packed along the rows or None."""
    values = unpack(words, bits, columns).float()
    groups = torch.arange(columns) // group
    if zero is not None:
        values -= unpack(zero.T, bits, len(scale)).T.float()[:, groups]
    return values * scale.float()[:, groups]


def compressed_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every weight of a compressed folder by its name in the file, packed ones as float32."""
    from safetensors import safe_open

    bits, group = _format(folder)
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(f, "pt")) for f in sorted(folder.glob("*.safetensors"))]
        place = {name: file for file in files for name in file.keys()}  # noqa: SIM118  (no mapping)
        for name, file in place.items():
            if name.endswith(_PACKED):
                stem = name.removesuffix(_PACKED)
                scale, shape = (
                    place[stem + part].get_tensor(stem + part) for part in (".weight_scale", ".weight_shape")
                )
                zero = stem + ".weight_zero_point"
                stored = place[zero].get_tensor(zero) if zero in place else None
                columns = int(shape[1])
                yield (
                    stem + ".weight",
                    dequantised(
                        file.get_tensor(name), scale, stored, bits=bits, columns=columns, group=group or columns
                    ),
                )
            elif not name.endswith(_BESIDE):
                yield name, file.get_tensor(name)


def packed_layers(folder: Path) -> list[str]:
    """Names of the layers that are held in few bits, as the model nests them least."""
    from safetensors import safe_open

    found = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found += [_plain(n.removesuffix(_PACKED)) for n in file.keys() if n.endswith(_PACKED)]  # noqa: SIM118
    return found


@torch.no_grad()
def put_compressed(folder: Path, model: Any) -> None:
    """Copy what a compressed folder stores into the live model it was made from, in place.

    Raises ModelError when the two differ, or when anything but layers of the decoder is packed: head, embedding and
    vision tower stay in 16 bit.
    """
    outside = [n for n in packed_layers(folder) if not _LAYER.match(n)]
    if outside:
        raise ModelError(f"{folder}: {', '.join(outside[:3])} must stay in 16 bit and is packed; compress it again")
    wanted = {_plain(name): parameter for name, parameter in model.named_parameters()}
    for name, values in compressed_weights(folder):
        parameter = wanted.pop(_plain(name), None)
        if parameter is None or parameter.shape != values.shape:
            raise ModelError(f"{folder}: {name} does not fit the model it is compared with")
        parameter.copy_(values)
    if wanted:
        raise ModelError(f"{folder}: lacks {', '.join(sorted(wanted)[:3])}; compress it again")


def _plain(name: str) -> str:
    return _NESTING.sub("", name)


def _format(folder: Path) -> tuple[int, int | None]:
    """Bits of an integer, and columns of a group (None: a whole row)."""
    found = config_of(folder).get("quantization_config", {})
    schemes = [g["weights"] for g in found.get("config_groups", {}).values()]
    if found.get("format") != "pack-quantized" or len(schemes) != 1 or schemes[0]["num_bits"] not in (4, 8):
        raise ModelError(f"{folder}/config.json: not one group of 4 or 8 bits in 'pack-quantized'; compress it again")
    return schemes[0]["num_bits"], schemes[0].get("group_size")
