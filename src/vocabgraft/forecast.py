"""How much memory and time a recipe takes on a device, from its shape alone: no weights, no torch.

    body      = layers * (hidden * head_dim * (2 heads + 2 kv_heads) + 3 * hidden * intermediate)
    embedding = vocabulary * hidden                     (twice when not tied)
    memory    = weights 2 B (NF4 body 0.53 B) + masters 4 B + gradient and two Adam moments 12 B a trained number
                + buffers of logits + activations + libraries
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
_CHUNK, _SPAN = 128, 512  # tokens, of training.objective (which imports torch)
_LIBRARIES = {"cpu": 0.75 * _GIB, "cuda": 1.0 * _GIB}  # torch and what it loads; on a GPU its context
_RECOMPUTED = "activations do not fit and are formed again in the backward pass: a third more arithmetic in the body"
_ADAPTERS = 0.15 * _GIB  # PEFT and bitsandbytes on a CPU, where an NF4 body's file in bf16 stays mapped besides
_USABLE = 0.95  # the rest goes to the driver and to holes between allocations
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
    old_rows_gb: float
    """The part that is there because this or an earlier stage trains old rows."""
    hours: float
    fits: bool
    device: str
    device_memory_gb: float
    micro_batch: int
    gflops_per_token: float
    trained: int
    """Numbers that the stage moves."""
    recomputed: bool
    """Whether activations would not fit and are formed again in the backward pass (`training/recompute.py`)."""
    note: str
    """What the table of stages does not show."""

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
        opened = opened or any(g.endswith((".old", ".low")) for g in train)
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
    flops = flops_per_token(recipe, train, adapted=adapted)
    fixed = state_bytes(recipe, train, adapted=adapted, opened=opened)
    without = state_bytes(recipe, [g for g in train if not g.endswith((".old", ".low"))], adapted=adapted, opened=False)
    modules = recipe.lora.modules if adapted else ()
    rest = fixed + logit_bytes(matrix_rows(recipe), rows * training.window)
    rest += _LIBRARIES["cpu" if device.name == "cpu" else "cuda"]
    if device.name == "cpu" and adapted:
        rest += _ADAPTERS + (2 * body_numbers(shape) if recipe.lora.body == "nf4" else 0)
    moving = rows * training.window * activation_bytes(shape, train, modules)
    recomputed = _keeps_graph(train) and (rest + moving) / _GIB > device.memory_gb * _USABLE
    if recomputed:
        moving = rows * training.window * activation_bytes(shape, train, modules, recomputed=True)
        flops += 2.0 * body_numbers(shape)
    gb = (rest + moving) / _GIB
    seconds = tokens * flops / (device.tflops * device.efficiency * 1e12)
    return StageForecast(
        step=step,
        name=name,
        train=tuple(train),
        tokens=tokens,
        memory_gb=round(gb, 2),
        activations_gb=round(moving / _GIB, 2),
        old_rows_gb=round((fixed - without) / _GIB, 2),
        hours=round(seconds / 3600, 3),
        fits=gb <= device.memory_gb * _USABLE,
        device=device.name,
        device_memory_gb=device.memory_gb,
        micro_batch=rows,
        gflops_per_token=round(flops / 1e9, 3),
        trained=trained_numbers(recipe, train),
        recomputed=recomputed,
        note="; ".join(n for n in (_degenerate(recipe, step), _RECOMPUTED if recomputed else "") if n),
    )


def needs_recompute(recipe: Recipe, step: str, *, cpu: bool, memory_gb: float, micro_batch: int) -> bool:
    """Whether a step's activations must be formed again in the backward pass to fit into so many GB."""
    found = forecast(recipe, "cpu" if cpu else "h100", micro_batch=micro_batch, memory_gb=memory_gb)
    return any(f.recomputed for f in found if f.step == step)


def _degenerate(recipe: Recipe, step: str) -> str:
    """On a tied base a new row is one value: stages of one route and of the other move the same numbers."""
    at = _STEP_KEYS.index(step) if step in _STEP_KEYS else 0
    moved = [_values(recipe, s.train) for s in recipe.stage[: at + 1]]
    routes = {g.partition(".")[0] for s in recipe.stage[: at + 1] for g in s.train if g.endswith(".new")}
    if step not in _STEP_KEYS or moved[-1] not in moved[:-1] or moved[-1] != {"new"} or len(routes) < 2:
        return ""
    return (
        f"moves the values that stage {moved.index(moved[-1]) + 1} moved, by another route: the base is tied; "
        "init.row_untied = true gives each route its own"
    )


def _values(recipe: Recipe, train: Collection[str]) -> set[str]:
    """What moves; where the two routes are one value, a block stands once and without its route."""
    tied = recipe.base.tied
    shared = {"old": tied, "low": tied, "new": tied and not recipe.init.row_untied}
    return {b if shared.get(b := g.rpartition(".")[2], False) else g for g in train}


def trained_numbers(recipe: Recipe, train: Collection[str]) -> int:
    """Numbers that the groups move."""
    width = recipe.base.shape.hidden
    sizes = {"old": matrix_rows(recipe) * width, "new": recipe.tokenizer.pieces * width}
    sizes["low"] = (matrix_rows(recipe) + width) * recipe.lora.rank
    sizes["lora"] = adapter_numbers(recipe.base.shape, recipe.lora.rank, recipe.lora.modules)
    return sum(sizes[v.rpartition(".")[2]] for v in _values(recipe, train))


def table(forecasts: Sequence[StageForecast]) -> list[str]:
    """For people: a line a stage, and what is to be known about it below."""
    head = f"{'stage':34} {'moves':>12} {'tokens':>12} {'GFLOP/token':>11} {'memory':>9} {'hours':>8}"
    lines = [f"{head}   on {forecasts[0].device}"]
    for f in forecasts:
        lines.append(
            f"{f.name[:34]:34} {f.trained:12,} {f.tokens:12,} {f.gflops_per_token:11.2f} {f.memory_gb:6.1f} GB "
            f"{f.hours:8.2f}"
        )
        lines += [f"  {f.note}"] if f.note else []
    return lines


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
    """What makes it fit, from the least change to the greatest; every cure is of the whole run."""

    def needed(batch: bool, old: bool) -> float:
        return max(
            f.memory_gb - batch * f.activations_gb * (1 - 1 / f.micro_batch) - old * f.old_rows_gb for f in forecasts
        )

    room, batch = worst.device_memory_gb * _USABLE, worst.micro_batch > 1
    cures = [("use --micro-batch 1", needed(True, False))] if batch else []
    held = [f.step for f in forecasts if f.old_rows_gb and any(g.endswith(".old") for g in f.train)]
    if held:
        leave = f"leave input.old and output.old out of {', '.join(held)}"
        cures.append((leave, needed(False, True)))
        cures += [(f"{leave} and use --micro-batch 1", needed(True, True))] if batch else []
    said = [f"{cure} ({gb:.1f} GB)" for cure, gb in cures if gb <= room][:1]
    gpus = sorted((d for d in DEVICES.values() if d.name != "cpu"), key=lambda d: d.memory_gb)
    bigger = [d for d in gpus if d.memory_gb * _USABLE >= needed(batch, False) and d.memory_gb > worst.device_memory_gb]
    if bigger:
        alone = bigger[0].memory_gb * _USABLE >= worst.memory_gb
        said.append(f"use {bigger[0].name}" + ("" if alone else " with --micro-batch 1"))
    return ", or ".join(said) or "choose a smaller base, training.window or lora.rank"


def body_numbers(shape: Shape) -> int:
    """Parameters of all layers (norms left out)."""
    attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def adapter_numbers(shape: Shape, rank: int, modules: Collection[str]) -> int:
    """Parameters of LoRA adapters on the named linear layers."""
    return shape.layers * sum(rank * sum(_linear(shape)[m]) for m in modules if m in _linear(shape))


def activation_bytes(
    shape: Shape, train: Collection[str], modules: Collection[str], *, recomputed: bool = False
) -> int:
    """Bytes a token that a forward pass holds until its backward pass; without a graph, two layers' worth; recomputed,
    the input of every layer and all of one (`training/recompute.py`)."""
    attention = 8 * (shape.heads + shape.kv_heads) * shape.head_dim
    layer = 16 * shape.hidden + attention + 6 * shape.intermediate
    if not _keeps_graph(train):
        return 2 * layer
    adapters = 4 * sum(_linear(shape)[m][0] for m in modules if m in _linear(shape))
    return 2 * shape.hidden * shape.layers + layer + adapters if recomputed else shape.layers * (layer + adapters)


def logit_bytes(vocabulary: int, tokens: int) -> int:
    """The buffers of `training.objective.Workspace`: a chunk in float32, a span in bf16."""
    return vocabulary * (min(_CHUNK, tokens) * 4 + min(_SPAN, tokens) * 2)


def matrix_rows(recipe: Recipe) -> int:
    """Rows of the embedding matrices: appended pieces add to the base's."""
    return recipe.base.shape.vocabulary + (recipe.tokenizer.pieces if recipe.tokenizer.place == "append" else 0)


def state_bytes(recipe: Recipe, train: Collection[str], *, adapted: bool, opened: bool) -> float:
    """Bytes of weights, float32 masters, gradients and Adam moments.

    adapted: adapters are attached. opened: this or an earlier stage trains old rows, so their masters are held.
    """
    shape, base = recipe.base.shape, recipe.base
    matrices = 1 if base.tied else 2
    old, new = matrix_rows(recipe) * shape.hidden, recipe.tokenizer.pieces * shape.hidden
    adapters = adapter_numbers(shape, recipe.lora.rank, recipe.lora.modules) if adapted else 0
    body = body_numbers(shape) * (_NF4 if adapted and recipe.lora.body == "nf4" else 2)
    # Where the two routes are one value, a block counts once.
    routes = 1 if base.tied and not recipe.init.row_untied else 2
    held = routes * new + (matrices * old if opened else 0) + adapters
    return body + 2 * matrices * old + 4 * held + 12 * trained_numbers(recipe, train)


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
