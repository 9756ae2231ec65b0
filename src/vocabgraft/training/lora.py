"""Adapters of the body (LoRA, arXiv 2106.09685; QLoRA, arXiv 2305.14314) through PEFT, named and saved by us.

They are carried from stage 6 through stage 7 to instruction tuning and merged once, at export, into the body in
its original precision. PEFT's own saving is not used: it loses or doubles the embeddings of a tied model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def attach(model: nn.Module, *, rank: int, alpha: int, modules: Sequence[str], seed: int) -> dict[str, nn.Parameter]:
    """Inject adapters into the named linear layers; returns {'<layer>.lora_A': …, '<layer>.lora_B': …} in order.

    B starts at zero, so the model is unchanged until the first update. A depends on `seed` only.
    """
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(modules), lora_dropout=0.0, bias="none")
    inject_adapter_in_model(config, model)
    found: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
            found[name.replace(".default.weight", "")] = parameter
    return dict(sorted(found.items()))


@torch.no_grad()
def load(adapters: dict[str, nn.Parameter], state: dict[str, Tensor]) -> None:
    """Take saved values; names must match exactly."""
    if set(adapters) != set(state):
        raise ValueError("saved adapters do not fit these layers")
    for name, parameter in adapters.items():
        parameter.copy_(state[name])


def merge_into(weights: dict[str, Tensor], adapters: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Base weights with adapters added: W + scale * B A, formed in float32, in each weight's own type.

    weights: tensors by Hugging Face name; only those with an adapter are returned.
    """
    merged = {}
    for name, a in adapters.items():
        if not name.endswith(".lora_A"):
            continue
        layer = name.removesuffix(".lora_A")
        w = weights[f"{layer}.weight"]
        delta = adapters[f"{layer}.lora_B"].float() @ a.float() * scale
        merged[f"{layer}.weight"] = (w.float() + delta).to(w.dtype)
    return merged


def describe(parameters: dict[str, Any]) -> dict[str, int]:
    """How many adapters and numbers."""
    return {"adapters": len(parameters) // 2, "numbers": sum(p.numel() for p in parameters.values())}
