"""Every family of decoders, written and served by llama.cpp, says what transformers says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vocabgraft.deployment.agreement import CLOSE, Reference, next_token_agreement
from vocabgraft.deployment.gguf_export import export_gguf
from vocabgraft.deployment.quantize import put_stored
from vocabgraft.deployment.serve import LlamaServer, new_key
from vocabgraft.errors import ModelError
from vocabgraft.models.gguf_families import turn, turn_back
from vocabgraft.models.load import load_model

NAMES = ("smollm2", "llama3", "llama2", "mistral", "qwen2", "qwen3")
PRE = {"smollm2": "smollm", "llama3": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2"}
Decoder = Callable[[str], Path]


def prompts(*texts: tuple[str, ...], words: int = 24) -> list[str]:
    return [" ".join(t.split()[: words - i]) for some in texts for i, t in enumerate(some[:10])]


@pytest.mark.parametrize("name", NAMES)
def test_the_served_file_gives_the_next_tokens_of_transformers(
    name: str, decoder: Decoder, korean: tuple[str, ...], english: tuple[str, ...], tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp")
    result = export_gguf(decoder(name), tmp_path / "m.gguf", quantization="f16")
    assert result["pre"] == PRE.get(name, "default")
    assert result["normalises"] == ("NFC" if name.startswith("qwen") else None)
    reference = Reference.load(decoder(name))
    with LlamaServer(tmp_path / "m.gguf", key=new_key(), context=512, threads=1) as server:
        found = next_token_agreement(reference, server, prompts(korean, english))
    assert found["prompts"] == 20
    assert found["largest"] < CLOSE / 3, found["worst"]


def test_another_model_is_told_from_the_right_one(
    decoder: Decoder, make_decoder, korean: tuple[str, ...], tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp")
    export_gguf(decoder("smollm2"), tmp_path / "m.gguf", quantization="f16")
    other = Reference.load(make_decoder(tmp_path / "other", "smollm2", rope_parameters={"rope_theta": 100.0}))
    with LlamaServer(tmp_path / "m.gguf", key=new_key(), context=512, threads=1) as server:
        assert next_token_agreement(other, server, prompts(korean))["largest"] > CLOSE


@pytest.mark.parametrize("name", NAMES)
def test_a_model_gets_its_own_weights_back(name: str, decoder: Decoder, tmp_path: Path) -> None:
    export_gguf(decoder(name), tmp_path / "m.gguf", quantization="f16")
    model = load_model(decoder(name))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.flip(0))
    put_stored(tmp_path / "m.gguf", model)
    for key, value in model.state_dict().items():
        ids = len(value) - 7 if "embed_tokens" in key or "lm_head" in key else len(value)  # padded rows stay
        torch.testing.assert_close(value[:ids], before[key][:ids], rtol=2**-8, atol=1e-6, msg=key)


def test_rows_are_turned_as_llama_cpp_turns_numbers() -> None:
    rows = np.arange(8)[:, None] * np.ones((1, 3))  # two heads of four rows: halves become neighbours
    assert turn(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    wide = np.random.default_rng(0).random((48, 5))
    assert np.array_equal(turn_back(turn(wide, 4), 4), wide)


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("smollm2", {"attention_bias": True}, "attention_bias is True, must be False"),
        ("smollm2", {"mlp_bias": True}, "mlp_bias"),
        ("smollm2", {"hidden_act": "gelu"}, "hidden_act is 'gelu', must be 'silu'"),
        ("mistral", {"sliding_window": 64}, "sliding_window is 64"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 64}, "sliding_window is 64"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        ("qwen3", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}}, "rope_type is 'yarn'"),
    ],
)
def test_settings_that_llama_cpp_would_compute_differently_are_refused(
    name: str, settings: dict, told: str, make_decoder, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=told):
        export_gguf(make_decoder(tmp_path / "model", name, **settings), tmp_path / "m.gguf", quantization="f16")


def test_another_architecture_is_sent_to_llama_cpps_converter(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}', "utf-8")
    with pytest.raises(ModelError, match=r"'mamba'; exported here are gemma3_text, .*qwen3\. Use convert_hf_to_gguf"):
        export_gguf(tmp_path, tmp_path / "m.gguf", quantization="f16")
