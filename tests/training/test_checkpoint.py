"""Kill it anywhere: the end is the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vocabgraft.training.checkpoint import Checkpoints, Snapshot
from vocabgraft.training.loop import Schedule, Trained, train

ALL = ("input.old", "input.new", "output.old", "output.new", "lora")


class Killed(Exception):
    """Stands for the power cut."""


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def run(
    world, folder: Path | None, groups: tuple[str, ...], die_at: int | None = None, steps: int = 6
) -> tuple[Trained, dict]:
    """Train a fresh graft, with a checkpoint after every step; returns the outcome and the final tensors."""

    def on_step(step: int, loss: float) -> None:
        if step == die_at:
            raise Killed

    graft = world.graft(dtype="bfloat16", rank=4)
    schedule = Schedule(groups, steps, lr_new=1e-2, lr_old=1e-3, lr_lora=1e-2, weight_decay=0.1)
    checkpoints = Checkpoints(folder, -1) if folder else None
    done = train(
        graft,
        world.mixture().batch,
        schedule,
        micro_batch=2,
        checkpoints=checkpoints,
        on_step=on_step,
    )
    return done, {**graft.rows.state(), **graft.adapters, **graft.model.state_dict()}


def assert_same(found: tuple[Trained, dict], expected: tuple[Trained, dict]) -> None:
    assert found[0].losses == expected[0].losses
    assert found[1].keys() == expected[1].keys()
    assert [name for name in expected[1] if not torch.equal(found[1][name], expected[1][name])] == []


@pytest.mark.parametrize("groups", [("input.new",), ALL], ids="+".join)
def test_a_killed_training_ends_in_the_bytes_of_an_unbroken_one(world, groups: tuple[str, ...], tmp_path: Path) -> None:
    for die_at in (4, 5):
        with pytest.raises(Killed):
            run(world, tmp_path, groups, die_at)
        assert Checkpoints(tmp_path).latest().step == die_at
    assert_same(run(world, tmp_path, groups), run(world, None, groups))


@pytest.mark.slow  # not when the cores are free
@pytest.mark.usefixtures("_two_threads")
def test_two_threads_end_in_the_same_bytes_too(tied_world, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tied_world, tmp_path, ALL, die_at=1, steps=2)
    assert_same(run(tied_world, tmp_path, ALL, steps=2), run(tied_world, None, ALL, steps=2))


@pytest.mark.parametrize("damage", ["cut", "flipped", "no state", "half a state", "no tensors"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tied_world, tmp_path: Path, damage: str) -> None:
    with pytest.raises(Killed):
        run(tied_world, tmp_path, ALL, die_at=4)
    newest = tmp_path / "step-0000004"
    tensors, state = newest / "tensors.safetensors", newest / "state.json"
    content = tensors.read_bytes()
    if damage == "cut":
        tensors.write_bytes(content[:-100])
    elif damage == "flipped":
        tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "no state":
        state.unlink()
    elif damage == "half a state":
        state.write_text(state.read_text("utf-8")[:20], "utf-8")
    else:
        tensors.unlink()
    assert Checkpoints(tmp_path).latest().step == 3
    assert_same(run(tied_world, tmp_path, ALL), run(tied_world, None, ALL))


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    for step in (1, 2, 3, 10):
        checkpoints.save(Snapshot(step, {"value/new": torch.full((2,), float(step))}, [0.5] * step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000003", "step-0000010"]
    latest = checkpoints.latest()
    assert (latest.step, latest.losses) == (10, [0.5] * 10)
    assert latest.tensors["value/new"].tolist() == [10.0, 10.0]


def test_a_save_that_was_cut_short_is_not_a_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(Snapshot(1, {"a": torch.zeros(1)}, [1.0]))
    partial = tmp_path / "step-0000002.partial"
    partial.mkdir()
    (partial / "state.json").write_text(json.dumps({"step": 2}), "utf-8")
    assert checkpoints.latest().step == 1
    checkpoints.save(Snapshot(2, {"a": torch.ones(1)}, [1.0, 2.0]))
    assert checkpoints.latest().step == 2
    assert not partial.exists()
