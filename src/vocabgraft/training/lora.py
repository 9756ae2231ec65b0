"""Adapters of the body through PEFT, named and saved by us.

LoRA (arXiv 2106.09685) over a body in bf16 or NF4 (QLoRA, arXiv 2305.14314); rsLoRA (arXiv 2312.03732) scales by
alpha / sqrt(rank); DoRA (arXiv 2402.09353) trains each row's length apart from its direction.

They are carried from stage 6 through stage 7 to instruction tuning and merged once, at export, into the body in
its original precision. PEFT's own saving is not used: it loses or doubles the embeddings of a tied model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vocabgraft.errors import ModelError
from vocabgraft.models.load import decoder_of

Kind = Literal["lora", "rslora", "dora"]


@dataclass(frozen=True)
class AdapterSpec:
    """What the adapters are: rank, scale and layers; how the body under them is held ('bf16' or 'nf4')."""

    rank: int
    alpha: int
    modules: tuple[str, ...]
    body: str
    kind: Kind = "lora"

    @property
    def scale(self) -> float:
        """What B A is multiplied with."""
        return self.alpha / (self.rank**0.5 if self.kind == "rslora" else self.rank)


def attach(
    model: nn.Module, *, rank: int, alpha: int, modules: Sequence[str], seed: int, kind: Kind = "lora"
) -> dict[str, nn.Parameter]:
    """Inject adapters into the body's linear layers of the given last names; a vision tower is left alone.

    Returns {'<layer>.lora_A': …, '<layer>.lora_B': …} in order, for DoRA '<layer>.lora_magnitude_vector' too. B starts
    at zero, so the model is unchanged until the first update. A depends on `seed` only.
    """
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(seed)
    inside = {id(m) for m in decoder_of(model).modules()}
    targets = [
        name
        for name, module in model.named_modules()
        if id(module) in inside and isinstance(module, nn.Linear) and name.split(".")[-1] in modules
    ]
    if not targets:
        raise ModelError(f"no linear layer of the body is called {', '.join(modules)}; see lora.modules")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
    )
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


@contextmanager
def silenced(model: nn.Module) -> Iterator[None]:
    """The model as it is without its adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def adapted(names: Collection[str], adapters: Collection[str]) -> dict[str, str]:
    """Stored name -> adapted layer, for names of weights and of adapters. Raises ModelError where they do not fit."""
    layers = sorted({n.rpartition(".lora_")[0] for n in adapters})
    torn = [n for n in layers if n == "" or not {f"{n}.lora_A", f"{n}.lora_B"} <= set(adapters)]
    if torn:
        raise ModelError(f"adapters without both halves, or none at all: {torn[0] or next(iter(adapters))!r}")
    return {_stored_name(names, f"{layer}.weight"): layer for layer in layers}


def merge_into(weights: dict[str, Tensor], adapters: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Base weights with adapters added: W + scale * B A, formed in float32, in each weight's own type.

    Under DoRA its rows then get the lengths that were learnt. weights: tensors by Hugging Face name; only those with
    an adapter are returned.
    """
    merged = {}
    for key, a in adapters.items():
        if not key.endswith(".lora_A"):
            continue
        layer = key.removesuffix(".lora_A")
        name = _stored_name(weights, f"{layer}.weight")
        w = weights[name]
        delta = adapters[f"{layer}.lora_B"].float() @ a.float() * scale
        whole = w.float() + delta
        length = adapters.get(f"{layer}.lora_magnitude_vector")
        if length is not None:
            whole *= (length.float() / whole.norm(dim=1))[:, None]
        merged[name] = whole.to(w.dtype)
    return merged


def _stored_name(weights: Collection[str], live: str) -> str:
    """A weight's name on disk: composite models store `language_model.model.layers…`, live `model.language_model…`."""
    if live in weights:
        return live
    ending = "." + live[max(live.find("layers."), 0) :]
    found = [n for n in weights if n.endswith(ending) and "vision" not in n]
    if len(found) != 1:
        raise ModelError(f"{live}: {len(found)} weights of this name in the base's files; its adapter cannot be merged")
    return found[0]
