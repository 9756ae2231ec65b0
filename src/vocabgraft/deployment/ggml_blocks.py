"""Which number format a tensor gets in a GGUF file, and the numbers in that format.

Q4_K_M is llama.cpp's mixture (its `llama-quant.cpp`): 4-bit blocks of 256 with 6-bit scales, and 6 bits for half of
the value and down projections. A row that does not divide by 256 falls back as there: Q4_K to Q5_0, Q6_K to Q8_0.
Gemma 3 270M, 640 wide, gets most of its matrices that way. Blocks of 32 are made by package gguf; it only reads blocks
of 256, so these are made by the compiled ggml inside xllamacpp, which is what llama-quantize itself runs.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Literal

import numpy as np

from vocabgraft.errors import MachineError
from vocabgraft.machine import missing_extra
from vocabgraft.models.gguf_file import gguf_package

Quantization = Literal["f16", "q8_0", "q4_0", "q4_1", "q4_k_m"]
FILE_TYPES: dict[str, int] = {"f16": 1, "q8_0": 7, "q4_0": 2, "q4_1": 3, "q4_k_m": 15}
"""llama.cpp's llama_ftype of each."""

VOCABULARY_MATRICES = ("token_embd.weight", "output.weight")
_FALLBACKS = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}
_BLOCK_OF_32 = 32


def tensor_type(name: str, shape: tuple[int, ...], quantization: str, num_layers: int) -> Any:
    """The type of one tensor. Vectors stay F32; rows that do not divide into blocks of 32 stay F16.

    Embedding and output matrix get 8 bits (Q4_K_M: 6, as llama.cpp gives a tied one), because int4 embeddings lose
    measurably.
    """
    gguf = gguf_package()
    types = gguf.GGMLQuantizationType
    if len(shape) == 1:
        return types.F32
    if quantization == "f16" or shape[-1] % _BLOCK_OF_32:
        return types.F16
    if quantization != "q4_k_m":
        return types.Q8_0 if name in VOCABULARY_MATRICES else types[quantization.upper()]
    wanted = "Q6_K" if name in VOCABULARY_MATRICES or _gets_more_bits(name, num_layers) else "Q4_K"
    whole_blocks = shape[-1] % gguf.GGML_QUANT_SIZES[types[wanted]][0] == 0
    return types[wanted if whole_blocks else _FALLBACKS[wanted]]


def _gets_more_bits(name: str, num_layers: int) -> bool:
    """Value and down projections of the first and last eighth of the layers, and of each third between."""
    if not name.endswith(("attn_v.weight", "ffn_down.weight")):
        return False
    layer, eighth = int(name.split(".")[1]), num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def in_blocks(values: np.ndarray, kind: Any) -> np.ndarray:
    """Rows of float32 numbers in the given type: bytes for quantised ones, numbers for F32 and F16."""
    from gguf.quants import quantize

    if kind.name.endswith("_K"):
        return _by_ggml(np.ascontiguousarray(values, dtype=np.float32), kind)
    found: np.ndarray = quantize(values, kind)
    return found


def _by_ggml(values: np.ndarray, kind: Any) -> np.ndarray:
    """Rows are independent, so runs of them go to several threads; the bytes are the same for any number."""
    import torch

    write = _ggml_quantizer()
    rows, width = values.shape
    out = np.empty(gguf_package().quant_shape_to_byte_shape(values.shape, kind), np.uint8)
    threads = torch.get_num_threads()
    step = -(-rows // threads)

    def run(start: int) -> None:
        stop = min(start + step, rows)
        write(int(kind), values[start:stop].ctypes.data, out[start:stop].ctypes.data, 0, stop - start, width, None)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(0, rows, step)))
    return out


@cache
def _ggml_quantizer() -> Any:
    """`ggml_quantize_chunk(type, numbers, blocks, first, rows, numbers a row, importance)` of ggml.h."""
    try:
        from xllamacpp import xllamacpp
    except ImportError as e:
        raise missing_extra("xllamacpp") from e
    try:
        found = ctypes.CDLL(xllamacpp.__file__).ggml_quantize_chunk
    except (OSError, AttributeError) as e:
        raise MachineError(
            "this build of xllamacpp does not give out ggml_quantize_chunk, which Q4_K_M needs; "
            "install another with: pip install -U xllamacpp, or use q4_1 or q8_0"
        ) from e
    found.restype = ctypes.c_size_t
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    found.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]
    return found
