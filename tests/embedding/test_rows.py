"""Masters are the truth, the live matrices follow, and each route's gradient is exactly its own."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
import torch
from torch.nn.functional import cross_entropy, embedding

from vocabgraft.corpus.mix import NO_TARGET
from vocabgraft.embedding.rows import Rows, hash_tensor
from vocabgraft.models.packed import hidden_states
from vocabgraft.training.gradients import Gradients

GROUPS = ("input.new", "output.new", "input.old", "output.old")
SUBSETS = list(chain.from_iterable(combinations(GROUPS, n) for n in range(1, 5)))


def close(found: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    """Equal to 1e-5 of the largest entry."""
    error = float((found - expected).abs().max())
    assert error <= 1e-5 * float(expected.abs().max()), f"{name}: {error}"


def test_a_tied_model_has_one_master_and_an_untied_two(world) -> None:
    rows = world.graft().rows
    assert rows.tied == world.tied
    assert (rows.new["input"] is rows.new["output"]) == world.tied
    assert len(list(rows.parameters(GROUPS[:2]))) == (1 if world.tied else 2)
    rows.open_old()
    names = [name for name, _ in rows.parameters(GROUPS)]
    assert sorted(names) == (["new", "old"] if world.tied else sorted(GROUPS))


def test_masters_are_float32_and_begin_as_the_live_rows(world) -> None:
    rows = world.graft(dtype="bfloat16").rows
    for route in ("input", "output"):
        assert rows.new[route].dtype == torch.float32
        assert torch.equal(rows.new[route], rows.live[route][world.ids].float())


def test_the_size_of_values_is_of_old_rows_and_follows_their_scale(world) -> None:
    rows = world.graft().rows
    with torch.no_grad():
        for live in {id(w): w for w in rows.live.values()}.values():
            live.normal_(std=0.3)
            live[world.ids] = 100.0
        assert rows.size_of_values() == pytest.approx(0.3, rel=0.1)
        rows.live["output"].mul_(5)
        assert rows.size_of_values() == pytest.approx(1.5 if world.tied else 0.3, rel=0.1)


def test_a_write_reaches_the_live_matrices_and_only_the_new_rows(world) -> None:
    graft = world.graft(dtype="bfloat16")
    before = graft.hashes()
    with torch.no_grad():
        for route in graft.rows.routes():
            graft.rows.new[route].normal_()
    assert graft.hashes() == before
    graft.rows.write()
    after = graft.hashes()
    changed = {key for key in before if before[key] != after[key]}
    assert changed == ({"input.new"} if world.tied else {"input.new", "output.new"})
    for route, matrix in (
        ("input", graft.model.get_input_embeddings()),
        ("output", graft.model.get_output_embeddings()),
    ):
        assert torch.equal(matrix.weight[world.ids], graft.rows.new[route].to(torch.bfloat16))


def test_a_write_that_changed_nothing_changes_no_byte(world) -> None:
    graft = world.graft(dtype="bfloat16")
    before = graft.hashes()
    graft.rows.open_old()
    graft.rows.write()
    assert graft.hashes() == before


def test_opening_the_old_rows_later_does_not_bring_back_old_new_rows(world) -> None:
    rows = world.graft(dtype="bfloat16").rows
    with torch.no_grad():
        rows.new["input"].fill_(0.5)
    rows.open_old()
    rows.write()
    assert float(rows.live["input"][world.ids].float().mean()) == 0.5


def test_loading_the_state_gives_the_same_model(world) -> None:
    trained = world.graft(dtype="bfloat16")
    trained.rows.open_old()
    with torch.no_grad():
        for route in trained.rows.routes():
            trained.rows.new[route].normal_()
            trained.rows.old[route].add_(0.25)
    trained.rows.write()
    fresh = world.graft(dtype="bfloat16")
    fresh.rows.load({k: v.clone() for k, v in trained.rows.state().items()})
    assert fresh.hashes() == trained.hashes()
    for name, value in trained.rows.state().items():
        assert torch.equal(fresh.rows.state()[name], value)
    before = trained.hashes()
    trained.rows.load(trained.rows.state())
    assert trained.hashes() == before


def test_rows_are_looked_up_as_the_model_does(world) -> None:
    for dtype, scale in (("float32", 8.0), ("bfloat16", 8.0)):
        rows = world.graft(dtype=dtype).rows
        assert rows.scale == scale == 64**0.5
        tokens = torch.tensor([[5, int(world.ids[3])]])
        assert torch.equal(rows.look_up(tokens)[0], rows.live["input"][tokens[0]] * scale)


def test_new_rows_may_lie_scattered(world) -> None:
    graft = world.graft()
    ids = torch.tensor([1600, 3, 1573])
    rows = Rows(graft.model, ids)
    with torch.no_grad():
        rows.new["input"].copy_(torch.arange(3.0)[:, None].expand(3, 64))
    rows.write()
    assert rows.live["input"][ids].mean(1).tolist() == [0.0, 1.0, 2.0]
    rows.add_input_gradient(torch.tensor([[3, 7, 1600, 3]]), torch.ones(1, 4, 64), ["input.new"])
    assert rows.new["input"].grad[:, 0].tolist() == [8.0, 16.0, 0.0]


def test_a_hash_tells_bytes_apart() -> None:
    a = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    assert hash_tensor(a) == hash_tensor(a.T.contiguous().T)
    assert hash_tensor(a) != hash_tensor(a + torch.tensor([[0, 0, 0], [0, 0, 2**-4]], dtype=torch.bfloat16))


@pytest.fixture(scope="module")
def reference(world):
    return by_autograd(world)


def by_autograd(world):
    """Loss and the gradient of each route by plain autograd: two leaves for the matrices, whole logits, no chunks."""
    graft, batch = world.graft(), world.mixture().batch(0)
    tokens, positions, targets = (torch.from_numpy(x) for x in (batch.tokens, batch.positions, batch.targets))
    matrix = {route: live.detach().clone().requires_grad_() for route, live in graft.rows.live.items()}
    x = embedding(tokens, matrix["input"]) * 8.0
    hidden = hidden_states(graft.model, x, positions)
    loss = cross_entropy((hidden @ matrix["output"].T).flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET)
    loss.backward()
    return float(loss.detach()), {route: m.grad for route, m in matrix.items()}


@pytest.mark.parametrize("groups", SUBSETS, ids="+".join)
def test_gradients_equal_autograd_for_every_choice_of_groups(world, reference, groups: tuple[str, ...]) -> None:
    graft, batch = world.graft(), world.mixture().batch(0)
    rows = graft.rows
    if any(g.endswith(".old") for g in groups):
        rows.open_old()
    # The step itself, not `train`: AdamW would hide the size of a gradient.
    loss = Gradients(graft, groups, micro_batch=2).of(batch)
    expected_loss, gradients = reference
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for block in ("new", "old"):
        for route in rows.routes():
            named = [g for g in groups if g.endswith(block) and (world.tied or g.startswith(route))]
            masters = rows.new if block == "new" else rows.old
            if not named:
                assert not masters or masters[route].grad is None
                continue
            whole = sum(gradients[g.partition(".")[0]] for g in named)
            if block == "new":
                close(masters[route].grad, whole[world.ids], f"{route}.new")
            else:
                expected = whole.clone()
                expected[world.ids] = 0.0
                close(masters[route].grad, expected, f"{route}.old")


@pytest.mark.parametrize("groups", SUBSETS, ids="+".join)
def test_row_untied_each_new_row_gets_the_gradient_of_each_route_apart(tied_world, groups: tuple[str, ...]) -> None:
    graft, batch = tied_world.graft(untie=True), tied_world.mixture().batch(0)
    rows = graft.rows
    if any(g.endswith(".old") for g in groups):
        rows.open_old()
    expected_loss, gradients = by_autograd(tied_world)
    assert Gradients(graft, groups, micro_batch=2).of(batch) == pytest.approx(expected_loss, rel=1e-5)
    for route in ("input", "output"):
        if f"{route}.new" in groups:
            close(rows.new[route].grad, gradients[route][tied_world.ids], f"{route}.new")
        else:
            assert rows.new[route].grad is None
    old = [g for g in groups if g.endswith("old")]
    if old:
        assert rows.old["input"] is rows.old["output"], "old rows stay shared"
        whole = sum(gradients[g.partition(".")[0]] for g in old)
        whole[tied_world.ids] = 0.0
        close(rows.old["input"].grad, whole, "old")


def test_row_untied_a_token_is_looked_up_in_one_value_and_scored_by_the_other(tied_world) -> None:
    graft = tied_world.graft(dtype="bfloat16", untie=True)
    rows, ids = graft.rows, tied_world.ids
    before, untouched = rows.hashes(), rows.live["input"][~rows.is_new].clone()
    assert set(before) == {"input.old", "input.new", "output.new"}
    with torch.no_grad():
        rows.new["input"].fill_(0.5)
        rows.new["output"].fill_(0.25)
    rows.write()
    assert (rows.look_up(ids[None])[0] == 0.5 * rows.scale).all()
    assert (graft.model.get_input_embeddings()(ids) == 0.5 * rows.scale).all(), "the model's own look-up too"
    assert (graft.model.get_output_embeddings().weight[ids] == 0.25).all()
    assert torch.equal(rows.live["output"][~rows.is_new], untouched)
    moved = {name for name, value in rows.hashes().items() if value != before[name]}
    assert moved == {"input.new", "output.new"}
    assert rows.values_of(["output.new", "output.old", "lora"]) == {"output.new", "input.old", "lora"}


def test_an_untied_model_has_nothing_to_untie(make_world) -> None:
    rows = make_world(tied=False).graft(untie=True).rows
    assert not rows.row_untied
    assert not rows.embedding._forward_hooks


def test_hashes_are_of_the_rows_bytes_whatever_the_parts(world, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = world.graft(dtype="bfloat16").rows
    expected = {f"{r}.old": hash_tensor(rows.live[r][~rows.is_new]) for r in rows.routes("old")}
    expected |= {f"{r}.new": hash_tensor(rows.live[r][rows.is_new]) for r in rows.routes("new")}
    monkeypatch.setattr("vocabgraft.embedding.rows._PART", 1000)
    assert rows.hashes() == expected
