"""What was learnt is saved once, carried by link, opened to the same bytes and exported into a plain folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vocabgraft.deployment.merge import export_folder
from vocabgraft.training.graft import (
    ADAPTERS,
    NEW,
    OLD,
    AdapterSpec,
    Graft,
    carry,
    open_graft,
    read,
    save_graft,
    write,
)
from vocabgraft.training.loop import Schedule, train

SPEC = AdapterSpec(rank=4, alpha=8, modules=("q_proj", "down_proj"), body="bf16")
ALL = ("input.old", "input.new", "output.old", "output.new", "lora")


def trained(world, groups: tuple[str, ...], state: Path | None = None, spec: AdapterSpec | None = SPEC) -> Graft:
    graft = open_graft(world.base, world.ids, state, spec=spec, seed=0, size=world.size)
    schedule = Schedule(groups, 1, lr_new=1e-2, lr_old=1e-2, lr_lora=1e-2, weight_decay=0.1)
    train(graft, world.mixture().batch, schedule, micro_batch=4)
    return graft


@pytest.fixture(scope="module")
def state(world, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Path]:
    """Hashes of a graft that learnt everything, and where it was saved."""
    folder = tmp_path_factory.mktemp("state")
    graft = trained(world, ALL)
    save_graft(graft, folder, None, ALL)
    return graft.hashes(), folder


def test_a_saved_graft_opens_to_the_same_bytes(world, state) -> None:
    hashes, folder = state
    assert open_graft(world.base, world.ids, folder, spec=SPEC, seed=5, size=world.size).hashes() == hashes
    assert sorted(p.name for p in folder.iterdir()) == sorted([NEW, OLD, ADAPTERS])


def test_without_a_state_a_graft_is_the_base(world) -> None:
    fresh, again = (open_graft(world.base, world.ids, None, spec=None, seed=s, size=world.size) for s in (0, 1))
    assert fresh.hashes() == again.hashes()
    weights = load_file(world.base / "model.safetensors")
    base, live = weights["model.embed_tokens.weight"], fresh.rows.live["input"]
    assert torch.equal(live[: len(base)], base)
    assert (live[len(base) :] == base.float().mean(0).to(base.dtype)).all()
    assert len(live) == (world.size or len(base)) == fresh.model.config.vocab_size
    assert "lora" not in fresh.hashes()


@pytest.mark.parametrize(
    ("groups", "linked"),
    [(("lora",), {NEW, OLD}), (("output.new",), {OLD, ADAPTERS}), (("input.old", "lora"), {NEW}), (ALL, set())],
)
def test_what_did_not_train_is_carried_as_a_hard_link(world, state, groups, linked: set[str], tmp_path: Path) -> None:
    graft = trained(world, groups, state[1])
    save_graft(graft, tmp_path, state[1], groups)
    assert {n for n in (NEW, OLD, ADAPTERS) if os.path.samefile(tmp_path / n, state[1] / n)} == linked
    assert open_graft(world.base, world.ids, tmp_path, spec=SPEC, seed=5, size=world.size).hashes() == graft.hashes()


def test_a_stage_without_adapters_does_not_lose_those_of_the_one_before(world, state, tmp_path: Path) -> None:
    save_graft(trained(world, ("input.new",), state[1], spec=None), tmp_path, state[1], ("input.new",))
    assert read(tmp_path / ADAPTERS).keys() == read(state[1] / ADAPTERS).keys()


def test_the_first_stage_saves_its_new_rows_alone(world, tmp_path: Path) -> None:
    save_graft(trained(world, ("input.new",), spec=None), tmp_path, None, ("input.new",))
    assert [p.name for p in tmp_path.iterdir()] == [NEW]


def test_where_links_are_not_to_be_had_the_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, goal: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"rows")
    (tmp_path / "b").write_bytes(b"older rows")
    carry(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"rows"


def test_writing_over_a_carried_file_leaves_the_original(tmp_path: Path) -> None:
    write(tmp_path / "a", {"x": torch.zeros(2)})
    carry(tmp_path / "a", tmp_path / "b")
    write(tmp_path / "b", {"x": torch.ones(2)})
    assert read(tmp_path / "a")["x"].tolist() == [0.0, 0.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_the_exported_folder_is_the_live_model(world, state, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    counts = export_folder(world.base, world.tokenizer, state[1], world.ids, tmp_path, scale=2.0, size=world.size)
    live = open_graft(world.base, world.ids, state[1], spec=SPEC, seed=0, size=world.size)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert model.dtype == torch.bfloat16
    assert torch.equal(model.get_input_embeddings().weight, live.rows.live["input"])
    assert torch.equal(model.get_output_embeddings().weight, live.rows.live["output"])
    tied = model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    assert tied == world.tied == json.loads((tmp_path / "config.json").read_text("utf-8"))["tie_word_embeddings"]
    tokens = AutoTokenizer.from_pretrained(tmp_path)(world.korean[0][:200], return_tensors="pt")
    assert set(tokens["input_ids"][0].tolist()) & set(world.expansion.ids), "the text uses new pieces"
    with torch.no_grad():
        expected, found = (m(**tokens).logits.float() for m in (live.model, model))
    assert float((found - expected).norm() / expected.norm()) < 0.02, "bfloat16 rounding only"
    assert counts["changed"] + counts["kept"] == len(load_file(world.base / "model.safetensors"))


def test_tensors_that_learnt_nothing_are_exported_byte_for_byte(world, state, tmp_path: Path) -> None:
    counts = export_folder(world.base, world.tokenizer, state[1], world.ids, tmp_path, scale=2.0, size=world.size)
    before, after = load_file(world.base / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    matrices = {"model.embed_tokens.weight"} | (set() if world.tied else {"lm_head.weight"})
    layers = {f"model.layers.{i}.{m}.weight" for i in (0, 1) for m in ("self_attn.q_proj", "mlp.down_proj")}
    assert changed == matrices | layers
    assert counts["changed"] == len(changed)


def test_new_rows_alone_leave_old_rows_as_in_the_base(world, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    groups = ("input.new", "output.new")
    save_graft(trained(world, groups, spec=None), tmp_path / "state", None, groups)
    export_folder(
        world.base, world.tokenizer, tmp_path / "state", world.ids, tmp_path / "out", scale=2.0, size=world.size
    )
    before, after = (load_file(f / "model.safetensors") for f in (world.base, tmp_path / "out"))
    for name in set(before) & {"model.embed_tokens.weight", "lm_head.weight"}:
        moved = (before[name] != after[name][: len(before[name])]).any(dim=1).nonzero()[:, 0].tolist()
        moved += range(len(before[name]), len(after[name]) if world.size else 0)
        assert len(moved) > 0, name
        assert set(moved) - set(range(max(world.expansion.ids) + 1, world.size or 0)) <= set(world.expansion.ids), name


def test_the_exported_folder_carries_the_expanded_tokenizer(tied_world, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    save_graft(trained(tied_world, ("input.new",), spec=None), tmp_path / "state", None, ("input.new",))
    export_folder(
        tied_world.base, tied_world.tokenizer, tmp_path / "state", tied_world.ids, tmp_path / "out", scale=2.0
    )
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (tied_world.tokenizer / name).read_bytes()
    assert not (tmp_path / "out/expansion.json").exists()
