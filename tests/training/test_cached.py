"""The cache gives the head's own loss and gradients, survives kills and bit flips, and trains as the loop does."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from vocabgraft.corpus.mix import NO_TARGET
from vocabgraft.embedding.rows import grad_of
from vocabgraft.errors import ModelError
from vocabgraft.models.packed import hidden_states
from vocabgraft.training import cached, cached_passes
from vocabgraft.training.cached import OutputCache, build_cache
from vocabgraft.training.cached_passes import Setting, loss_and_gradients, order, train_cached
from vocabgraft.training.loop import Schedule, train
from vocabgraft.training.objective import backward_through_head

BATCHES = 6


@pytest.fixture(scope="module")
def graft(tied_world) -> Any:
    return tied_world.graft(untie=True)


def build(world, graft: Any, folder: Path, **changed: Any) -> OutputCache:
    settings = {"key": "k", "micro_batch": 2} | changed
    return build_cache(graft, world.mixture().batch, BATCHES, folder, **settings)


def far(graft: Any) -> torch.Tensor:
    """Output rows so long that any training helps."""
    return graft.rows.new["output"].detach() * 9


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "SHARD", 300)  # two batches


def test_loss_and_gradient_of_a_batch_are_the_heads_own(tied_world, graft, tmp_path: Path) -> None:
    cache = build(tied_world, graft, tmp_path)
    assert len(cache) == BATCHES
    for number in (0, BATCHES - 1):
        batch = tied_world.mixture().batch(number)
        targets = torch.from_numpy(batch.targets)
        counted = targets != NO_TARGET
        with torch.no_grad():
            x = graft.rows.look_up(torch.from_numpy(batch.tokens))
            hidden = hidden_states(graft.model, x, torch.from_numpy(batch.positions))[counted]
        grad_of(graft.rows.new["output"]).zero_()
        weight = 1 / int(counted.sum())
        expected, _ = backward_through_head(
            hidden, targets[counted], graft.rows, ("output.new",), weight=weight, want_hidden=False
        )
        block, rows = cache.block(number), graft.rows.new["output"].detach()
        (loss, other), (gradient, _) = loss_and_gradients(block, [rows, rows * 9], None, torch.float32)
        assert len(block) == int(counted.sum())
        assert loss == pytest.approx(expected, rel=1e-5)
        assert other != pytest.approx(loss, rel=1e-3), "each set of rows has a loss of its own"
        torch.testing.assert_close(gradient, graft.rows.new["output"].grad, rtol=1e-4, atol=1e-7)
    graft.rows.new["output"].grad = None


def test_a_soft_cap_is_the_heads_own_too(tied_world, tmp_path: Path) -> None:
    graft = tied_world.graft(untie=True)
    graft.model.config.get_text_config().final_logit_softcapping = 2.0
    batch = tied_world.mixture().batch(0)
    cache = build(tied_world, graft, tmp_path)
    targets = torch.from_numpy(batch.targets)
    counted = targets != NO_TARGET
    with torch.no_grad():
        hidden = hidden_states(
            graft.model, graft.rows.look_up(torch.from_numpy(batch.tokens)), torch.from_numpy(batch.positions)
        )[counted]
    expected, _ = backward_through_head(
        hidden,
        targets[counted],
        graft.rows,
        ("output.new",),
        weight=1 / int(counted.sum()),
        want_hidden=False,
        softcap=2.0,
    )
    rows = graft.rows.new["output"]
    (loss,), (gradient,) = loss_and_gradients(cache.block(0), [rows.detach()], cache.softcap, torch.float32)
    assert loss == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gradient, rows.grad, rtol=1e-4, atol=1e-7)


def test_a_cached_pass_trains_as_the_loop_does(tied_world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graft = tied_world.graft(untie=True)
    start = far(graft)
    graft.rows.load({"output.new": start})
    cache = build(tied_world, graft, tmp_path)
    monkeypatch.setattr(cached_passes, "order", lambda cache, numbers, seed, epoch: list(numbers))
    (found,) = train_cached(
        cache, start, [Setting(1e-2, weight_decay=0.1)], held_out=1, epochs=1, seed=0, dtype=torch.float32
    )
    schedule = Schedule(("output.new",), BATCHES - 1, lr_new=1e-2, weight_decay=0.1)
    done = train(graft, tied_world.mixture().batch, schedule, micro_batch=2)
    torch.testing.assert_close(found.rows, graft.rows.new["output"].detach(), rtol=1e-4, atol=1e-5)
    assert found.best == 1
    tokens = [len(cache.block(n)) for n in range(BATCHES - 1)]
    mean = sum(loss * n for loss, n in zip(done.losses, tokens, strict=True)) / sum(tokens)
    assert found.trained == [pytest.approx(mean, rel=1e-5)]


def test_settings_side_by_side_are_as_each_alone(tied_world, graft, tmp_path: Path) -> None:
    cache, start = build(tied_world, graft, tmp_path), far(graft)
    settings = [Setting(1e-3), Setting(3e-2), Setting(3e-2, pull=10.0)]
    together = train_cached(cache, start, settings, held_out=2, epochs=3, seed=1)
    for setting, found in zip(settings, together, strict=True):
        (alone,) = train_cached(cache, start, [setting], held_out=2, epochs=3, seed=1)
        assert found.held_out == pytest.approx(alone.held_out, rel=1e-4)
    moved = [float((o.rows - start).norm()) for o in together]
    assert moved[2] < moved[1], "a pull holds rows near their start"


def test_training_that_does_not_help_gives_the_start_back(tied_world, graft, tmp_path: Path) -> None:
    cache, start = build(tied_world, graft, tmp_path), graft.rows.new["output"].detach()
    (found,) = train_cached(cache, start, [Setting(0.99)], held_out=1, epochs=5, seed=0, warmup=0.0)
    assert found.best == 0
    assert len(found.held_out) == 2, "it stopped after the first epoch that was no better"
    assert torch.equal(found.rows, start)


@pytest.mark.usefixtures("small_shards")
def test_an_interrupted_build_ends_in_the_same_bytes(tied_world, graft, tmp_path: Path) -> None:
    whole = build(tied_world, graft, tmp_path / "whole")
    assert len(whole.shards) == BATCHES // 2
    asked = []

    def until(step: int) -> Any:
        asked.append(step)
        if step == 3 and asked.count(3) == 1:
            raise KeyboardInterrupt
        return tied_world.mixture().batch(step)

    with pytest.raises(KeyboardInterrupt):
        build_cache(graft, until, BATCHES, tmp_path / "cut", key="k", micro_batch=2)
    found = build_cache(graft, until, BATCHES, tmp_path / "cut", key="k", micro_batch=2)
    assert found.shards == whole.shards
    assert asked == [0, 1, 2, 3, 2, 3, 4, 5], "what stood on disk was not computed again"


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_shard_is_computed_again(tied_world, graft, tmp_path: Path, damage: str) -> None:
    shards = build(tied_world, graft, tmp_path).shards
    path = tmp_path / shards[1].file
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    {"flip": lambda: path.write_bytes(raw), "cut": lambda: path.write_bytes(raw[:-9]), "gone": path.unlink}[damage]()
    assert build(tied_world, graft, tmp_path).shards == shards
    assert all(cached.sha256_file(tmp_path / s.file) == s.sha256 for s in shards)


def test_what_another_model_gave_is_refused(tied_world, graft, tmp_path: Path) -> None:
    build(tied_world, graft, tmp_path)
    with pytest.raises(ModelError, match="another model or text"):
        build(tied_world, graft, tmp_path, key="other")
    (tmp_path / "index.json").write_text("{")
    assert len(build(tied_world, graft, tmp_path)) == BATCHES, "an index cut off by a crash is written anew"
    assert json.loads((tmp_path / "index.json").read_text())["key"] == "k"


def test_eight_bits_a_number_cost_little(tied_world, graft, tmp_path: Path) -> None:
    full, eight = build(tied_world, graft, tmp_path / "a"), build(tied_world, graft, tmp_path / "b", kept="fp8")
    rows = graft.rows.new["output"].detach()
    for number in range(BATCHES):
        (expected,), _ = loss_and_gradients(full.block(number), [rows], None, torch.float32)
        (found,), _ = loss_and_gradients(eight.block(number), [rows], None, torch.float32)
        assert found == pytest.approx(expected, rel=1e-3)
    assert cached.described(eight)["bytes"] < 0.45 * cached.described(full)["bytes"]


@pytest.mark.usefixtures("small_shards")
def test_every_epoch_has_an_order_of_its_own_and_reads_each_shard_once(tied_world, graft, tmp_path: Path) -> None:
    cache = build(tied_world, graft, tmp_path)
    orders = [order(cache, range(BATCHES), 0, epoch) for epoch in range(20)]
    assert all(sorted(o) == list(range(BATCHES)) for o in orders)
    assert len({tuple(o) for o in orders}) > 10
    assert orders[3] == order(cache, range(BATCHES), 0, 3)
    for o in orders:
        files = [cache.shard_of(n) for n in o]
        assert sum(a != b for a, b in pairwise(files)) == len(cache.shards) - 1


@pytest.mark.parametrize(("batches", "held_out"), [(1, 1), (2, 2), (2, 0)])
def test_some_batches_train_and_some_judge(tied_world, graft, tmp_path: Path, batches: int, held_out: int) -> None:
    cache = build_cache(graft, tied_world.mixture().batch, batches, tmp_path, key="k", micro_batch=2)
    with pytest.raises(ModelError, match=f"{batches} batches, {held_out} of them held out; at least one of each"):
        train_cached(cache, graft.rows.new["output"].detach(), [Setting(1e-3)], held_out=held_out, epochs=1, seed=0)


@pytest.mark.parametrize("untie", [False, True])
def test_all_output_rows_train_over_a_cache_as_over_the_text(tied_world, tmp_path: Path, untie: bool) -> None:
    """Tied, too, as long as no row moved since the forward pass: one step."""
    groups, steps = ("output.old", "output.new"), 3 if untie else 1
    schedule = Schedule(groups, steps, lr_new=1e-2, lr_old=1e-2)
    plain, over = tied_world.graft(untie=untie), tied_world.graft(untie=untie)
    cache = build(tied_world, over, tmp_path)
    expected = train(plain, tied_world.mixture().batch, schedule, micro_batch=2)
    found = train(over, lambda step: pytest.fail("asked for text"), schedule, micro_batch=2, cache=cache)
    assert found.losses[:1] == pytest.approx(expected.losses[:1], rel=1e-5)
    for name, value in plain.rows.state().items():
        if steps == 1:
            torch.testing.assert_close(over.rows.state()[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_cache_serves_output_rows_alone(tied_world, graft, tmp_path: Path) -> None:
    cache = build(tied_world, graft, tmp_path)
    with pytest.raises(ModelError, match="output rows alone"):
        train(graft, tied_world.mixture().batch, Schedule(("input.new",), 1, lr_new=1e-2), micro_batch=2, cache=cache)
