"""Adapters begin as nothing, and merged they are the live model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vocabgraft.deployment.merge import export_folder
from vocabgraft.embedding.rows import Rows, grow
from vocabgraft.models.load import load_model
from vocabgraft.training import lora
from vocabgraft.training.graft import Graft, save_graft

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TOKENS = torch.tensor([[2, *range(400, 440), 1573, 1600, 1700]])


def attach(model, seed: int = 0, kind: lora.Kind = "lora") -> dict[str, torch.nn.Parameter]:
    return lora.attach(model, rank=4, alpha=8, modules=MODULES, seed=seed, kind=kind)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS, use_cache=False).logits


def randomise(adapters: dict[str, torch.nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for adapter in adapters.values():
            adapter.normal_(0.0, 0.1, generator=generator)


def test_fresh_adapters_change_no_logit(tied_world) -> None:
    model = load_model(tied_world.base, dtype="float32")
    before = logits(model)
    adapters = attach(model)
    assert torch.equal(logits(model), before)
    randomise(adapters)
    assert not torch.equal(logits(model), before)


def test_each_named_layer_gets_a_pair_in_float32(tied_world) -> None:
    adapters = attach(load_model(tied_world.base))
    assert len(adapters) == 2 * 2 * len(MODULES)
    assert list(adapters) == sorted(adapters)
    assert "model.layers.1.mlp.down_proj.lora_A" in adapters
    assert {p.dtype for p in adapters.values()} == {torch.float32}
    assert all(p.requires_grad for p in adapters.values())


def test_adapters_depend_on_the_seed_alone(tied_world) -> None:
    def fresh(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(seed + 3)  # whatever random numbers were drawn before
        return {k: v.detach() for k, v in attach(load_model(tied_world.base), seed).items()}

    first, again, other = fresh(0), fresh(0), fresh(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_adapters_of_other_layers_are_not_taken(tied_world) -> None:
    adapters = attach(load_model(tied_world.base))
    state = {name: adapter.detach().clone() for name, adapter in adapters.items()}
    lora.load(adapters, state)
    state.pop("model.layers.1.mlp.down_proj.lora_A")
    with pytest.raises(ValueError, match="do not fit"):
        lora.load(adapters, state)


@pytest.fixture
def float_base(world, tmp_path: Path) -> Path:
    """The base in float32, so that merging rounds nothing."""
    folder = tmp_path / "float32"
    shutil.copytree(world.base, folder)
    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8")) | {"dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_the_merged_folder_gives_the_logits_of_the_live_model(
    world, float_base: Path, tmp_path: Path, kind: lora.Kind
) -> None:
    spec = lora.AdapterSpec(4, 8, MODULES, "bf16", kind)
    model = load_model(float_base, dtype="float32")
    grow(model, world.size)
    plain = logits(model)
    graft = Graft(model, Rows(model, world.ids), attach(model, kind=kind))
    randomise(graft.adapters)
    graft.rows.open_old()
    with torch.no_grad():
        for route in graft.rows.routes():
            graft.rows.new[route].normal_(0.0, 0.03)
            graft.rows.old[route].add_(0.001)
    graft.rows.write()
    (tmp_path / "state").mkdir()
    save_graft(graft, tmp_path / "state", None, ("input.old", "input.new", "lora"))
    counts = export_folder(
        float_base,
        world.tokenizer,
        tmp_path / "state",
        world.ids,
        tmp_path / "merged",
        scale=spec.scale,
        size=world.size,
    )
    merged = load_model(tmp_path / "merged", dtype="float32")
    assert float((logits(merged) - logits(model)).abs().max()) <= 1e-4
    assert float((logits(merged) - plain).abs().max()) > 0.1
    assert counts["changed"] == 2 * len(MODULES) + (1 if world.tied else 2)


def test_a_merge_is_formed_in_float32_and_rounded_once() -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(6, 5, generator=generator).to(torch.bfloat16)
    a, b = torch.randn(2, 5, generator=generator), torch.randn(6, 2, generator=generator)
    merged = lora.merge_into({"l.weight": w, "other.weight": w}, {"l.lora_A": a, "l.lora_B": b}, 2.0)
    assert set(merged) == {"l.weight"}
    assert torch.equal(merged["l.weight"], (w.float() + 2.0 * (b @ a)).to(torch.bfloat16))


def test_silenced_adapters_leave_the_base_and_come_back(tied_world) -> None:
    graft = tied_world.graft(rank=4)  # its adapters do something
    tokens = torch.tensor([[2, 5, 9, 30]])
    with torch.no_grad():
        loud = graft.model(input_ids=tokens).logits
        with lora.silenced(graft.model):
            quiet = graft.model(input_ids=tokens).logits
        again = graft.model(input_ids=tokens).logits
        plain = load_model(tied_world.base, dtype="float32")(input_ids=tokens).logits
    assert torch.equal(quiet, plain)
    assert torch.equal(again, loud)
    assert not torch.allclose(loud, quiet)
    assert all(p.requires_grad for p in graft.adapters.values()), "they can train on"
