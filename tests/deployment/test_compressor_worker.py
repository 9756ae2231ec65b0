"""llm-compressor itself, where its environment is there: what it stores is what we read, and the rest stays in 16 bit.

The environment is more than 1 GB and takes minutes, so no test makes it: benchmarks/compression.py does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vocabgraft.deployment.compress import compress
from vocabgraft.deployment.compressed_weights import compressed_weights, packed_layers, put_compressed
from vocabgraft.deployment.compressor_environment import environment_folder
from vocabgraft.errors import ModelError
from vocabgraft.machine import cache_folder
from vocabgraft.models.load import load_model
from vocabgraft.tokenizer.measure import encode, load_tokenizer

PYTHON = environment_folder(cache_folder()) / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no environment of llm-compressor at {PYTHON.parents[1]}"),
]
Wide = Callable[[bool], Path]
LAYERS = 2 * 7


def texts(folder: Path, prose: tuple[str, ...]) -> list[list[int]]:
    return [[2, *ids[:80]] for ids in encode(load_tokenizer(folder), prose[:8])]


@pytest.fixture(scope="module")
def multimodal(wide: Wide, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Gemma 3 that sees, around the shape and the tokenizer of the other."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    out, raw = tmp_path_factory.mktemp("seeing") / "model", json.loads((wide(True) / "config.json").read_text("utf-8"))
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    names += ("num_key_value_heads", "head_dim", "query_pre_attn_scalar", "sliding_window", "rope_parameters")
    vision = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"image_size": 32, "patch_size": 8}
    places = {"mm_tokens_per_image": 4, "image_token_index": 7, "boi_token_index": 8, "eoi_token_index": 9}
    torch.manual_seed(0)
    text = {name: raw[name] for name in names}
    config = Gemma3Config(text_config=text, vision_config=vision | sizes, **places)
    Gemma3ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(out)
    for path in wide(True).iterdir():
        if path.name.startswith(("tokenizer", "chat_template")):
            shutil.copyfile(path, out / path.name)
    return out


@pytest.mark.parametrize(("method", "tied"), [("awq", True), ("gptq", False), ("rtn", False), ("w8a16", True)])
def test_a_method_packs_the_layers_and_nothing_else(
    wide: Wide, korean: tuple[str, ...], tmp_path: Path, method: str, tied: bool
) -> None:
    said: list[str] = []
    found = compress(
        wide(tied), tmp_path / "out", method, python=PYTHON, calibration=texts(wide(tied), korean),
        dtype="float32", say=said.append,
    )  # fmt: skip
    reads = method in ("awq", "gptq")
    assert (found["samples"], "3 layers done" in said) == (8 if reads else 0, reads)
    assert found["bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in wide(tied).iterdir()}
    assert len(packed_layers(tmp_path / "out")) == LAYERS
    live, full = load_model(wide(tied), dtype="float32"), load_model(wide(tied), dtype="float32")
    put_compressed(tmp_path / "out", live)
    for name in ("embed_tokens", "lm_head"):
        a, b = (
            dict(m.named_modules())[n].weight
            for m in (live, full)
            for n in [n for n, _ in m.named_modules() if n.endswith(name)]
        )
        assert bool((a == b).all()), f"{name} stays in 16 bit"
    names = {n for n, _ in compressed_weights(tmp_path / "out")}
    assert ("lm_head.weight" in names) == (not tied)


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_the_half_that_sees_stays_in_16_bit(
    multimodal: Path, korean: tuple[str, ...], tmp_path: Path, method: str
) -> None:
    out = tmp_path / "out"
    compress(multimodal, out, method, python=PYTHON, calibration=texts(multimodal, korean), dtype="float32")
    assert len(packed_layers(out)) == LAYERS
    live, full = load_model(multimodal, dtype="float32"), load_model(multimodal, dtype="float32")
    put_compressed(out, live)
    for (name, a), b in zip(live.named_parameters(), full.parameters(), strict=True):
        if "vision_tower" in name or "projector" in name or "embed_tokens" in name:
            assert bool((a == b).all()), name


def test_what_the_compressor_cannot_read_is_one_sentence_and_leaves_nothing(wide: Wide, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(wide(True), broken)
    config = json.loads((broken / "config.json").read_text("utf-8"))
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "nothing-known"}), "utf-8")
    with pytest.raises(ModelError, match=r"the compressor failed \(ValueError: ") as e:
        compress(broken, tmp_path / "out", "w8a16", python=PYTHON)
    assert "\n" not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]
