"""How much memory and time a recipe takes on a device, from its shape alone: no weights, no torch.

    body      = layers * (hidden * head_dim * (2 heads + 2 kv_heads) + 3 * hidden * intermediate)
    embedding = vocabulary * hidden                     (twice when not tied)
    memory    = weights 2 B (NF4 body 0.53 B) + masters 4 B + gradient and two Adam moments 12 B a trained number
                + a chunk of logits + activations + 1 GB for the libraries
    FLOPs     = 2 (body + embedding) forward, + 2 body + 2 embedding where gradients reach the hidden states,
                + 2 embedding where old output rows train, + 6 adapters    (a token; attention scores left out)

Activations of a kept graph: 16 hidden + 8 (heads + kv_heads) head_dim + 6 intermediate bytes a token and layer;
adapters keep a float32 copy of their input besides. Counted with saved-tensor hooks on Gemma 3 270M: 51.8 and
91.6 bytes * hidden, the formula says 51.2 and 90.4. A vision tower (MedGemma 4B: 0.8 GB) is not in a shape.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from vocabgraft.errors import MachineError
from vocabgraft.recipe import Recipe
from vocabgraft.recipe_sections import Shape

_GIB = 2**30
_NF4 = 0.53  # bytes a number: half a byte, and scales quantised once more (QLoRA, arXiv 2305.14314, section 3)
_LOGITS_CHUNK, _LOGIT_BYTES = 128, 10  # training.objective: bf16, float32, and room for one more float32
_LIBRARIES = 1.0 * _GIB
_USABLE = 0.95  # the rest goes to the driver and to holes between allocations
_CHECKPOINT_SECONDS = 120  # machine.detect: a shorter stage writes no checkpoint
_STEP_KEYS = tuple(f"3{n}-stage{n}" for n in range(1, 8))


@dataclass(frozen=True)
class Device:
    """Memory in GB, dense bf16 peak in TFLOP/s and the share of it that training reaches."""

    name: str
    memory_gb: float
    tflops: float
    efficiency: float = 0.35


DEVICES = {
    d.name: d
    for d in (
        Device("cpu", 16, 0.15, 1.0),  # 2 cores with bf16 instructions, effective: measured 0.12 on a busy machine
        Device("a5000", 24, 111),
        Device("4090", 24, 165),
        Device("a6000", 48, 154.8),
        Device("h100", 80, 989),
        Device("h200", 141, 989),
    )
}


@dataclass(frozen=True)
class StageForecast:
    """One training step on one device. GB are 2^30 bytes; `activations_gb` is the part a smaller batch shrinks."""

    step: str
    name: str
    train: tuple[str, ...]
    tokens: int
    memory_gb: float
    activations_gb: float
    hours: float
    fits: bool
    device: str
    device_memory_gb: float
    micro_batch: int

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def forecast(recipe: Recipe, gpu: str, *, micro_batch: int = 2, memory_gb: float | None = None) -> list[StageForecast]:
    """The stages and instruction tuning on a device of `DEVICES`.

    micro_batch: packed rows a forward pass, as in `machine.detect`. memory_gb: the real memory, where it is known
    (the table says 16 for 'cpu'). Raises MachineError for an unknown device.
    """
    device = _device(gpu)
    if memory_gb is not None:
        device = replace(device, memory_gb=memory_gb)
    jobs = [(k, s.name, s.train, s.tokens) for k, s in zip(_STEP_KEYS, recipe.stage, strict=False)]
    jobs.append(("41-instruct", "instruction tuning", recipe.instruct.train, recipe.instruct.tokens))
    found, opened = [], False
    for step, name, train, tokens in jobs:
        # Masters of old rows, once trained, are loaded by every later stage.
        opened = opened or any(g.endswith(".old") for g in train)
        found.append(_stage(recipe, device, micro_batch, step, name, train, tokens, opened))
    return found


def _stage(
    recipe: Recipe, device: Device, rows: int, step: str, name: str, train: tuple[str, ...], wanted: int, opened: bool
) -> StageForecast:
    training, shape = recipe.training, recipe.base.shape
    rows_per_step = max(1, training.tokens_per_step // training.window)
    rows = min(rows, rows_per_step)
    adapted = "lora" in train or step == "41-instruct"
    tokens = max(1, round(wanted / (rows_per_step * training.window))) * rows_per_step * training.window
    seconds = tokens * flops_per_token(recipe, train, adapted=adapted) / (device.tflops * device.efficiency * 1e12)
    # In CPU memory what is saved is serialised beside what it is taken from.
    copies = 0 if device.name != "cpu" else 12 if seconds > _CHECKPOINT_SECONDS else 4
    fixed = state_bytes(recipe, train, adapted=adapted, opened=opened, copies=copies)
    moving = rows * training.window * activation_bytes(shape, train, recipe.lora.modules if adapted else ())
    logits = min(_LOGITS_CHUNK, rows * training.window) * matrix_rows(recipe) * _LOGIT_BYTES
    gb = (fixed + moving + logits + _LIBRARIES) / _GIB
    return StageForecast(
        step=step,
        name=name,
        train=tuple(train),
        tokens=tokens,
        memory_gb=round(gb, 2),
        activations_gb=round(moving / _GIB, 2),
        hours=round(seconds / 3600, 3),
        fits=gb <= device.memory_gb * _USABLE,
        device=device.name,
        device_memory_gb=device.memory_gb,
        micro_batch=rows,
    )


def verdict(forecasts: Sequence[StageForecast]) -> str:
    """One sentence: does it fit, how long does it take, and what to do when it does not fit."""
    worst = max(forecasts, key=lambda f: f.memory_gb)
    room, hours = worst.device_memory_gb, sum(f.hours for f in forecasts)
    if worst.fits:
        return (
            f"fits in {room:g} GB ({worst.device}): at most {worst.memory_gb:.1f} GB, in {worst.step}; "
            f"training takes about {_duration(hours)}"
        )
    return (
        f"does not fit in {room:g} GB ({room * _USABLE:.1f} of them usable): {worst.step} ({worst.name}) needs "
        f"{worst.memory_gb:.1f} GB; {_advice(forecasts, worst)}"
    )


def _advice(forecasts: Sequence[StageForecast], worst: StageForecast) -> str:
    least = max(f.memory_gb - f.activations_gb * (1 - 1 / f.micro_batch) for f in forecasts)
    cures = ["use --micro-batch 1"] if least <= worst.device_memory_gb * _USABLE else ["train fewer groups"]
    gpus = sorted((d for d in DEVICES.values() if d.name != "cpu"), key=lambda d: d.memory_gb)
    bigger = [d for d in gpus if d.memory_gb > worst.device_memory_gb and d.memory_gb * _USABLE >= least]
    if bigger:
        alone = bigger[0].memory_gb * _USABLE >= worst.memory_gb
        cures.append(f"use {bigger[0].name}" + ("" if alone else " with --micro-batch 1"))
    return ", or ".join(cures)


def body_numbers(shape: Shape) -> int:
    """Parameters of all layers (norms left out)."""
    attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def adapter_numbers(shape: Shape, rank: int, modules: Collection[str]) -> int:
    """Parameters of LoRA adapters on the named linear layers."""
    return shape.layers * sum(rank * sum(_linear(shape)[m]) for m in modules if m in _linear(shape))


def activation_bytes(shape: Shape, train: Collection[str], modules: Collection[str]) -> int:
    """Bytes a token that a forward pass holds until its backward pass; without a graph, two layers' worth."""
    attention = 8 * (shape.heads + shape.kv_heads) * shape.head_dim
    layer = 16 * shape.hidden + attention + 6 * shape.intermediate
    if not _keeps_graph(train):
        return 2 * layer
    adapters = 4 * sum(_linear(shape)[m][0] for m in modules if m in _linear(shape))
    return shape.layers * (layer + adapters)


def matrix_rows(recipe: Recipe) -> int:
    """Rows of the embedding matrices: appended pieces add to the base's."""
    return recipe.base.shape.vocabulary + (recipe.tokenizer.pieces if recipe.tokenizer.place == "append" else 0)


def state_bytes(recipe: Recipe, train: Collection[str], *, adapted: bool, opened: bool, copies: int = 0) -> float:
    """Bytes of weights, float32 masters, gradients and Adam moments.

    adapted: adapters are attached. opened: this or an earlier stage trains old rows, so their masters are held.
    copies: further bytes held for a trained number while it is saved.
    """
    shape, base = recipe.base.shape, recipe.base
    matrices = 1 if base.tied else 2
    old, new = matrix_rows(recipe) * shape.hidden, recipe.tokenizer.pieces * shape.hidden
    adapters = adapter_numbers(shape, recipe.lora.rank, recipe.lora.modules) if adapted else 0
    body = body_numbers(shape) * (_NF4 if adapted and recipe.lora.body == "nf4" else 2)
    # Where the two routes are one value, a block counts once.
    shared = {"old": base.tied, "new": base.tied and not recipe.init.row_untied}
    blocks = {b if shared[b] else g for g in train if g != "lora" for b in [g.split(".")[-1]]}
    trained = sum(old if b.endswith("old") else new for b in blocks) + (adapters if "lora" in train else 0)
    held = (1 if shared["new"] else 2) * new + (matrices * old if opened else 0) + adapters
    return body + 2 * matrices * old + 4 * held + (12 + copies) * trained


def flops_per_token(recipe: Recipe, train: Collection[str], *, adapted: bool) -> float:
    """Floating-point operations of one training token, forward and backward."""
    shape = recipe.base.shape
    body, embedding = body_numbers(shape), matrix_rows(recipe) * shape.hidden
    adapters = adapter_numbers(shape, recipe.lora.rank, recipe.lora.modules) if adapted else 0
    flops = 2.0 * (body + embedding + adapters)
    if _keeps_graph(train):
        flops += 2 * (body + embedding + adapters)
    if "output.old" in train:
        flops += 2 * embedding
    return flops + (2 * adapters if "lora" in train else 0)


def _keeps_graph(train: Collection[str]) -> bool:
    return "lora" in train or any(g.startswith("input.") for g in train)


def _linear(shape: Shape) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of a layer's linear maps, by module name."""
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "q_proj": (shape.hidden, query),
        "k_proj": (shape.hidden, key),
        "v_proj": (shape.hidden, key),
        "o_proj": (query, shape.hidden),
        "gate_proj": (shape.hidden, shape.intermediate),
        "up_proj": (shape.hidden, shape.intermediate),
        "down_proj": (shape.intermediate, shape.hidden),
    }


def _device(name: str) -> Device:
    if name.lower() in DEVICES:
        return DEVICES[name.lower()]
    near = difflib.get_close_matches(name.lower(), DEVICES, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(DEVICES)}"
    raise MachineError(f"device {name!r} is not in the table of forecasts; {hint}")


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return "a minute"
    return (
        f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.1f} days"
    )
