"""Gradient checkpointing (arXiv 1604.06174): activations of a layer are formed again in the backward pass, not kept.

A third more arithmetic in the body for a fraction of its memory; gradients are the same bits. Used where a stage would
not fit otherwise (`forecast.needs_recompute`), so it is no field of a recipe.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from vocabgraft.errors import ModelError
from vocabgraft.models.load import decoder_of


@contextmanager
def recomputed(model: Any, wanted: bool = True) -> Iterator[None]:
    """While inside, the layers of the body keep their input alone. ModelError for a body whose layers cannot."""
    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    if not wanted:
        yield
        return
    layers: list[Any] = [m for m in decoder_of(model).modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(f"{type(model).__name__} cannot recompute activations; use --micro-batch 1 or a larger device")
    for layer in layers:
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        # The flag alone: the layer's parts stay in eval mode, without dropout.
        layer.gradient_checkpointing = layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False
