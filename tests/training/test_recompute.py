"""Activations formed again in the backward pass: the same gradients from far less that is kept."""

from __future__ import annotations

import pytest
import torch

from vocabgraft.errors import ModelError
from vocabgraft.training.gradients import Gradients
from vocabgraft.training.recompute import recomputed

GROUPS = ("input.new", "output.new", "lora")


def gradients(graft, batch, wanted: bool) -> tuple[float, dict[str, torch.Tensor], int]:
    """Loss, gradients by name, and bytes that the graph kept."""
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with recomputed(graft.model, wanted), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = Gradients(graft, GROUPS, micro_batch=2).of(batch)
    found = {n: p.grad.clone() for n, p in [*graft.rows.parameters(GROUPS), *graft.adapters.items()]}
    return loss, found, kept


def test_gradients_are_the_same_bits_and_less_is_kept(world) -> None:
    batch = world.mixture().batch(0)
    loss, expected, whole = gradients(world.graft(rank=4), batch, wanted=False)
    again, found, kept = gradients(world.graft(rank=4), batch, wanted=True)
    assert again == loss
    assert [n for n in expected if not torch.equal(found[n], expected[n])] == []
    assert kept < 0.2 * whole


def test_the_model_is_left_as_it_was(tied_world) -> None:
    model = tied_world.graft().model
    with pytest.raises(KeyboardInterrupt), recomputed(model):
        raise KeyboardInterrupt
    assert not any(m.training for m in model.modules())


def test_a_body_that_cannot_is_refused() -> None:
    class Plain(torch.nn.Module):
        def get_decoder(self) -> torch.nn.Module:
            return torch.nn.Linear(2, 2)

    with pytest.raises(ModelError, match="cannot recompute activations"), recomputed(Plain()):
        pass
