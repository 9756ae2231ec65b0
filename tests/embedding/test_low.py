"""Old rows changed by few numbers: gradients are autograd's, nothing else moves, the change is merged at the end."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, embedding

from vocabgraft.corpus.mix import NO_TARGET
from vocabgraft.errors import ModelError
from vocabgraft.models.packed import hidden_states
from vocabgraft.training.checkpoint import Checkpoints
from vocabgraft.training.gradients import Gradients
from vocabgraft.training.loop import Schedule, train

GROUPS = [("input.low",), ("output.low",), ("input.low", "output.low", "input.new", "output.new")]
SCALE = 2.0


def opened(world, groups: tuple[str, ...]):
    """A graft whose change is not zero."""
    graft = world.graft()
    graft.rows.open_low(groups, 4, SCALE)
    generator = torch.Generator().manual_seed(5)
    for low in dict.fromkeys(graft.rows.low.values()):
        with torch.no_grad():
            low.a.normal_(0.0, 0.02, generator=generator)
            low.a[world.ids] = 0.0
        low.write()
    return graft


def by_autograd(graft, batch) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the gradients of A and B by route, from whole matrices W + s A B as leaves' functions."""
    tokens, positions, targets = (torch.from_numpy(x) for x in (batch.tokens, batch.positions, batch.targets))
    leaves, whole = {}, {}
    for route in ("input", "output"):
        whole[route] = graft.rows.live[route].detach()
        if route in graft.rows.low:
            low = graft.rows.low[route]
            leaves[route] = [p.detach().clone().requires_grad_() for p in (low.a, low.b)]
            whole[route] = whole[route] + SCALE * leaves[route][0] @ leaves[route][1]
    hidden = hidden_states(graft.model, embedding(tokens, whole["input"]) * 8.0, positions)
    loss = cross_entropy((hidden @ whole["output"].T).flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET)
    loss.backward()
    return float(loss.detach()), {route: [p.grad for p in pair] for route, pair in leaves.items()}


@pytest.mark.parametrize("groups", GROUPS, ids="+".join)
def test_gradients_are_autograds(world, groups: tuple[str, ...]) -> None:
    graft, batch = opened(world, groups), world.mixture().batch(0)
    expected_loss, expected = by_autograd(graft, batch)
    assert Gradients(graft, groups, micro_batch=2).of(batch) == pytest.approx(expected_loss, rel=1e-5)
    for route, low in graft.rows.low.items():
        named = [r for r in ("input", "output") if f"{r}.low" in groups and (world.tied or r == route)]
        for at, found in enumerate((low.a, low.b)):
            whole = sum(expected[r][at] for r in named).clone()
            if at == 0:
                whole[world.ids] = 0.0
            assert float((found.grad - whole).abs().max()) <= 1e-5 * float(whole.abs().max())


def trained(world, groups: tuple[str, ...], checkpoints: Checkpoints | None = None, die_at: int | None = None):
    """A few steps."""

    def on_step(step: int, loss: float) -> None:
        if step == die_at:
            raise KeyboardInterrupt

    graft = world.graft(dtype="bfloat16", rank=4)
    schedule = Schedule(groups, 4, lr_new=1e-2, lr_lora=3e-2, weight_decay=0.1, low_rank=4)
    batch_at = world.mixture().batch
    return graft, train(graft, batch_at, schedule, micro_batch=2, checkpoints=checkpoints, on_step=on_step)


@pytest.mark.parametrize("groups", GROUPS[1:], ids="+".join)
def test_what_is_not_named_stays_and_old_rows_move(world, groups: tuple[str, ...]) -> None:
    before = world.graft(dtype="bfloat16", rank=4).hashes()
    graft, _ = trained(world, groups)
    after, free = graft.hashes(), graft.rows.values_of(groups)
    assert {name for name in before if before[name] != after[name]} == free
    assert not graft.rows.low
    assert set(graft.rows.state()) >= {"input.old", "input.new"}


def test_the_model_at_the_end_is_what_trained(world) -> None:
    graft, batch = opened(world, GROUPS[2]), world.mixture().batch(0)
    seen = Gradients(graft, (), micro_batch=4).of(batch)
    with graft.rows.merged():
        inside = {r: m.detach().clone() for r, m in graft.rows.live.items()}
    graft.rows.close_low()
    assert Gradients(graft, (), micro_batch=4).of(batch) == pytest.approx(seen, rel=1e-5)
    assert all(torch.equal(inside[r], m.detach()) for r, m in graft.rows.live.items())


def test_measured_in_between_it_goes_on_as_if_nothing_was(tied_world) -> None:
    graft = opened(tied_world, GROUPS[2])
    before = {r: m.detach().clone() for r, m in graft.rows.live.items()}
    with graft.rows.merged():
        assert not torch.equal(before["input"], graft.rows.live["input"])
    assert all(torch.equal(before[r], m.detach()) for r, m in graft.rows.live.items())


def test_a_killed_training_ends_in_the_same_bytes(tied_world, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tied_world, GROUPS[2], Checkpoints(tmp_path, -1), die_at=2)
    again, done = trained(tied_world, GROUPS[2], Checkpoints(tmp_path, -1))
    whole, expected = trained(tied_world, GROUPS[2])
    assert (done.losses, done.optimizer) == (expected.losses, expected.optimizer)
    assert again.hashes() == whole.hashes()


def test_other_kernels_of_the_loss_refuse(tied_world) -> None:
    graft = tied_world.graft()
    schedule = Schedule(("output.low",), 1, lr_lora=1e-3, backend="torch")
    with pytest.raises(ModelError, match="low-rank change of old rows needs the loss backend 'ours'"):
        train(graft, tied_world.mixture().batch, schedule, micro_batch=2)
