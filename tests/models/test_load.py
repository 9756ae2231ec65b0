"""Only plain safetensors folders are loaded; in 4 bits too, gradients stay right."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from vocabgraft.errors import ModelError
from vocabgraft.models.load import decoder_of, load_model
from vocabgraft.training import lora

TOKENS = torch.tensor([[2, *range(400, 430)]])


@pytest.fixture
def folder(tied_world, tmp_path: Path) -> Path:
    shutil.copytree(tied_world.base, tmp_path / "model")
    return tmp_path / "model"


def test_everything_is_frozen_and_in_eval_mode(world) -> None:
    model = load_model(world.base)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert decoder_of(model) is model.model


def test_loading_leaves_logging_as_it_was(world) -> None:
    before = logging.root.manager.disable
    load_model(world.base)
    assert logging.root.manager.disable == before


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(tmp_path)


def test_a_configuration_that_is_not_json_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{", "utf-8")
    with pytest.raises(ModelError, match="not JSON"):
        load_model(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors file; pickled weights are not read"):
        load_model(folder)


def test_a_configuration_that_brings_code_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "modeling_evil.py").write_text("raise SystemExit('ran')", "utf-8")
    with pytest.raises(ModelError, match="auto_map would run code"):
        load_model(folder)


def adapter_gradients(model, adapters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    for adapter in adapters.values():
        adapter.grad = None
    x = model.get_input_embeddings()(TOKENS).detach().requires_grad_()
    decoder_of(model)(inputs_embeds=x, use_cache=False).last_hidden_state.float().square().sum().backward()
    return {"input": x.grad, **{name: adapter.grad for name, adapter in adapters.items()}}


def nf4(world, dtype: str) -> tuple[torch.nn.Module, dict[str, torch.nn.Parameter]]:
    model = load_model(world.base, dtype=dtype, body="nf4")
    adapters = lora.attach(model, rank=4, alpha=8, modules=["q_proj", "down_proj"], seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for adapter in adapters.values():
            adapter.normal_(0.0, 0.05, generator=generator)
    return model, adapters


def test_the_body_is_held_in_4_bits_and_the_matrices_are_not(tied_world) -> None:
    import bitsandbytes

    model, _ = nf4(tied_world, "bfloat16")
    four_bit = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(four_bit) == 2 * 7
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert model.get_output_embeddings().weight.dtype == torch.bfloat16


def test_an_evaluation_in_between_does_not_change_gradients_under_nf4(tied_world) -> None:
    """bitsandbytes 0.50 repacks 4-bit weights in an eval forward on processors with AVX512-BF16, and its autograd
    then reads the repacked bytes as if they were the old ones: no error, other gradients."""
    model, adapters = nf4(tied_world, "bfloat16")
    before = adapter_gradients(model, adapters)
    with torch.no_grad():
        model(input_ids=TOKENS, use_cache=False)
        model(input_ids=TOKENS[:, :1], use_cache=False)
    after = adapter_gradients(model, adapters)
    assert all(float(g.abs().max()) > 0 for g in before.values())
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_gradients_under_nf4_are_those_of_the_restored_weights(tied_world) -> None:
    import bitsandbytes

    model, adapters = nf4(tied_world, "float32")
    found = adapter_gradients(model, adapters)
    plain = load_model(tied_world.base, dtype="float32")
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, bitsandbytes.nn.Linear4bit):
                goal = plain.get_submodule(name.removesuffix(".base_layer"))
                goal.weight.copy_(bitsandbytes.functional.dequantize_4bit(module.weight, module.weight.quant_state))
    same = lora.attach(plain, rank=4, alpha=8, modules=["q_proj", "down_proj"], seed=0)
    lora.load(same, {name: adapter.detach() for name, adapter in adapters.items()})
    for name, gradient in adapter_gradients(plain, same).items():
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * float(gradient.abs().max()), name
