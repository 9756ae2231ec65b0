"""A stage moves what it names and nothing else; batches are isolated, and micro-batches do not matter."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib.resources import files

import pytest
import torch

from vocabgraft.corpus.mix import NO_TARGET, Example, pack_documents, pack_examples
from vocabgraft.errors import ModelError
from vocabgraft.models.load import decoder_of
from vocabgraft.models.packed import hidden_states
from vocabgraft.training.gradients import Gradients
from vocabgraft.training.loop import Schedule, train
from vocabgraft.training.lora import silenced

RECIPE = tomllib.loads((files("vocabgraft") / "recipes/korean-gemma-270m.toml").read_text("utf-8"))
STAGES = [tuple(stage["train"]) for stage in RECIPE["stage"]]
ALL = ("input.old", "input.new", "output.old", "output.new", "lora")


def schedule(groups: tuple[str, ...], steps: int = 2, weight_decay: float = 0.1, lr: float = 1e-2) -> Schedule:
    """Rates high enough that every step shows in bfloat16."""
    return Schedule(groups, steps, lr_new=lr, lr_old=lr, lr_lora=lr, weight_decay=weight_decay)


def shown_as(groups: tuple[str, ...], tied: bool) -> set[str]:
    """The names under which `Graft.hashes` shows a group: one matrix has one route there."""
    return {g.replace("output.", "input.") if tied else g for g in groups}


def test_the_recipe_has_seven_stages() -> None:
    assert len(STAGES) == 7
    assert len(set(STAGES)) == 7


@pytest.mark.parametrize("groups", STAGES, ids="+".join)
def test_a_stage_moves_what_it_names_and_not_one_bit_else(world, groups: tuple[str, ...]) -> None:
    graft = world.graft(dtype="bfloat16", rank=4)
    before = graft.hashes()
    done = train(graft, world.mixture().batch, schedule(groups), micro_batch=4)
    after = graft.hashes()
    assert {key for key in before if before[key] != after[key]} == shown_as(groups, world.tied)
    assert done.steps == len(done.losses) == 2
    assert done.tokens == 2 * 4 * 48


@pytest.mark.parametrize("groups", STAGES, ids="+".join)
def test_row_untied_a_stage_moves_one_route_of_new_rows(tied_world, groups: tuple[str, ...]) -> None:
    graft = tied_world.graft(dtype="bfloat16", rank=4, untie=True)
    before = graft.hashes()
    train(graft, tied_world.mixture().batch, schedule(groups), micro_batch=4)
    after = graft.hashes()
    moved = {g.replace("output.old", "input.old") for g in groups}
    assert {key for key in before if before[key] != after[key]} == moved == graft.rows.values_of(groups)


@pytest.mark.parametrize("groups", STAGES, ids="+".join)
def test_every_stage_learns(world, groups: tuple[str, ...]) -> None:
    graft, batch = world.graft(rank=4), world.mixture().batch(0)
    done = train(graft, lambda step: batch, schedule(groups, steps=6, weight_decay=0.0), micro_batch=4)
    assert done.losses[-1] < done.losses[0]


def test_a_gradient_mask_would_let_old_rows_drift(world) -> None:
    """The usual recipe: one matrix, a hook that zeroes the old rows' gradient, AdamW with weight decay."""
    graft, batch = world.graft(), world.mixture().batch(0)
    matrix = graft.rows.live["input"].requires_grad_()
    matrix.register_hook(lambda gradient: gradient * graft.rows.is_new[:, None])
    before = graft.hashes()
    optimizer = torch.optim.AdamW([matrix], lr=1e-2, weight_decay=0.1)
    tokens, targets = torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)
    logits = graft.model(input_ids=tokens, position_ids=torch.from_numpy(batch.positions), use_cache=False).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET).backward()
    assert float(matrix.grad[~graft.rows.is_new].abs().max()) == 0.0, "the mask does what it says"
    optimizer.step()
    assert graft.hashes()["input.old"] != before["input.old"], "and yet what was masked moved"


def test_routes_of_one_matrix_are_different_trainings(world) -> None:
    found = []
    for groups in STAGES[:3]:
        graft = world.graft()
        train(graft, world.mixture().batch, schedule(groups, steps=1), micro_batch=4)
        found.append(graft.hashes())
    assert len({(f["input.new"], f.get("output.new")) for f in found}) == 3


def test_adapters_a_stage_does_not_name_get_no_gradient(tied_world) -> None:
    graft = tied_world.graft(rank=4)
    train(graft, tied_world.mixture().batch, schedule(("input.new", "output.new"), steps=1), micro_batch=4)
    assert {adapter.grad for adapter in graft.adapters.values()} == {None}
    train(graft, tied_world.mixture().batch, schedule(("lora",), steps=1), micro_batch=4)


@pytest.mark.parametrize("groups", [("input.new", "output.new"), ALL], ids="+".join)
def test_the_micro_batch_does_not_change_the_loss(world, groups: tuple[str, ...]) -> None:
    losses = [
        train(world.graft(rank=4), world.mixture().batch, schedule(groups, steps=3), micro_batch=size).losses
        for size in (1, 2, 4)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("groups", [("output.new",), ("input.new", "output.new"), ALL], ids="+".join)
def test_a_loss_that_is_not_finite_stops_before_the_update(tied_world, groups: tuple[str, ...]) -> None:
    graft = tied_world.graft(rank=4)
    with torch.no_grad():
        graft.rows.new["output"][0] = float("nan")
    graft.rows.write()
    before = graft.hashes()
    with pytest.raises(ModelError, match=r"loss is nan at step 0, tokens of its first row \[2, "):
        train(graft, tied_world.mixture().batch, schedule(groups), micro_batch=4)
    assert graft.hashes() == before


def test_a_training_that_failed_leaves_no_gradient_for_the_next(tied_world) -> None:
    graft = tied_world.graft()
    good = graft.rows.new["output"].detach().clone()
    with torch.no_grad():
        graft.rows.new["output"][0] = float("nan")
    graft.rows.write()
    with pytest.raises(ModelError, match="loss is nan"):
        train(graft, tied_world.mixture().batch, schedule(("output.new",)), micro_batch=4)
    graft.rows.load({"input.new": good})
    again = train(graft, tied_world.mixture().batch, schedule(("output.new",)), micro_batch=4)
    fresh = train(tied_world.graft(), tied_world.mixture().batch, schedule(("output.new",)), micro_batch=4)
    assert again.losses == fresh.losses


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (Schedule(("lora",), 1, lr_lora=1e-3), "the graft has no adapters"),
        (Schedule(("input.new",), 1), "no learning rate for"),
        (Schedule(("input.new", "output.old"), 1, lr_new=1e-3), "no learning rate for"),
    ],
)
def test_a_schedule_that_cannot_run_is_refused(tied_world, wanted: Schedule, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        train(tied_world.graft(), tied_world.mixture().batch, wanted, micro_batch=4)


def test_rates_rise_to_the_peak_and_fall_to_a_tenth() -> None:
    factors = [Schedule(("lora",), 100).factor(step) for step in range(100)]
    assert factors[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert max(factors) == 1.0
    assert factors[-1] == pytest.approx(0.1, abs=0.001)
    assert Schedule(("lora",), 1).factor(0) == 1.0


@pytest.fixture(scope="module")
def long_documents(tied_world) -> list[list[int]]:
    """Token runs shorter and longer than the sliding window of 64."""
    from vocabgraft.tokenizer.measure import encode, load_tokenizer

    ids = encode(load_tokenizer(tied_world.tokenizer), tied_world.korean[:5])
    return [text[:n] for text, n in zip(ids, (90, 7, 30, 100, 11), strict=True)]


def separately(model: torch.nn.Module, documents: list[list[int]]) -> torch.Tensor:
    """Hidden states of each document alone, one after the other."""
    with torch.no_grad():
        found = [
            decoder_of(model)(input_ids=torch.tensor([[2, *d]]), use_cache=False).last_hidden_state[0]
            for d in documents
        ]
    return torch.cat(found)


def test_packed_documents_do_not_see_each_other(world, long_documents: list[list[int]]) -> None:
    graft = world.graft()
    batch = pack_documents(long_documents, sum(map(len, long_documents)) + 5 + 9, bos=2)
    positions = torch.from_numpy(batch.positions)
    x = graft.rows.look_up(torch.from_numpy(batch.tokens))
    with torch.no_grad():
        packed = hidden_states(graft.model, x, positions)[0, :-9]
        mask = torch.ones(x.shape[:2], dtype=torch.long)
        masked = decoder_of(graft.model)(
            inputs_embeds=x, position_ids=positions, attention_mask=mask, use_cache=False
        ).last_hidden_state[0, :-9]
    alone = separately(graft.model, long_documents)
    assert float((packed - alone).abs().max()) <= 1e-5
    assert float((masked - alone).abs().max()) > 1e-2, "a mask of ones would have mixed them"


def test_rows_of_a_batch_do_not_see_each_other_nor_their_padding(world, long_documents: list[list[int]]) -> None:
    graft = world.graft()
    examples = [Example((2, *d), (True,) * (len(d) + 1)) for d in long_documents]
    batch = pack_examples(examples, 105)
    assert len(batch) > 2
    with torch.no_grad():
        x = graft.rows.look_up(torch.from_numpy(batch.tokens))
        packed = hidden_states(graft.model, x, torch.from_numpy(batch.positions))
    real = torch.from_numpy(batch.tokens) != 0
    assert float((packed[real] - separately(graft.model, long_documents)).abs().max()) <= 1e-5


def test_retention_holds_old_text_to_the_base_and_leaves_new_text_alone(tied_world) -> None:
    def apart(retain: float) -> list[float]:
        graft, mixture = tied_world.graft(rank=4), tied_world.mixture(rows_per_step=8)
        with torch.no_grad():  # adapters that begin at nothing, as in a run
            for name, adapter in graft.adapters.items():
                adapter.mul_(0.0 if name.endswith(".lora_B") else 1.0)
        course = schedule(("lora",), steps=6, weight_decay=0.0, lr=3e-2)
        train(graft, mixture.batch, replace(course, retain=retain), micro_batch=8)
        found = []
        for rows in (mixture.target, mixture.replay):
            x = graft.rows.look_up(torch.from_numpy(rows.tokens))
            with torch.no_grad():
                now = hidden_states(graft.model, x, torch.from_numpy(rows.positions))
                with silenced(graft.model):
                    base = hidden_states(graft.model, x, torch.from_numpy(rows.positions))
            found.append(float((now - base).square().mean()))
        return found

    (free_new, free_old), (held_new, held_old) = apart(0.0), apart(30.0)
    assert held_old < 0.5 * free_old
    assert held_new / free_new > held_old / free_old, "text with new tokens may move"


def test_the_gradient_of_retention_is_autograds(tied_world) -> None:
    graft, batch = tied_world.graft(rank=4), tied_world.mixture(rows_per_step=8).batch(0)
    tokens, positions, targets = (torch.from_numpy(a) for a in (batch.tokens, batch.positions, batch.targets))
    counted, old = targets != NO_TARGET, ~graft.rows.is_new[tokens].any(1)
    assert 0 < int(old.sum()) < len(old)
    x = graft.rows.look_up(tokens)
    hidden = hidden_states(graft.model, x, positions).detach().requires_grad_()
    with torch.no_grad(), silenced(graft.model):
        base = hidden_states(graft.model, x, positions)
    kept = counted & old[:, None]
    expected = 0.5 * (hidden - base)[kept].square().sum() / base[kept].square().sum(1).mean()
    expected.backward()
    into = torch.zeros_like(hidden)
    found = Gradients(graft, ("lora",), 8).hold(x, positions, old, hidden.detach(), counted, 0.5, into)
    assert found == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(into, hidden.grad, rtol=1e-4, atol=1e-9)
