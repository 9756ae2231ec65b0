"""How much memory and time a recipe takes on a device, from its shape alone (`cost.py`): no weights, no torch."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from vocabgraft.cost import (
    activation_bytes,
    body_numbers,
    flops_per_token,
    keeps_graph,
    logit_bytes,
    matrix_rows,
    state_bytes,
    trained_numbers,
    values_moved,
)
from vocabgraft.errors import MachineError
from vocabgraft.recipe import Recipe

_GIB = 2**30
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
    found, opened = [], False
    for at, key in enumerate((*_STEP_KEYS[: len(recipe.stage)], "41-instruct")):
        job = recipe.instruct if key == "41-instruct" else recipe.stage[at]
        name = "instruction tuning" if key == "41-instruct" else recipe.stage[at].name
        opened = opened or _opens(job.train)
        need = _need(recipe, device, micro_batch, job.train, adapted=_adapted(key, job.train), opened=opened)
        found.append(_stage(recipe, device, need, key, name, job.train, job.tokens))
    return found


def needs_recompute(recipe: Recipe, step: str, *, cpu: bool, memory_gb: float, micro_batch: int) -> bool:
    """Whether a step's activations must be formed again in the backward pass to fit into so many GB."""
    device = replace(DEVICES["cpu" if cpu else "h100"], memory_gb=memory_gb)
    last = _STEP_KEYS.index(step) if step in _STEP_KEYS else len(recipe.stage) - 1
    trained = [recipe.stage[n].train for n in range(last + 1)]
    if step not in _STEP_KEYS:
        trained.append(recipe.instruct.train)
    opened, adapted = any(map(_opens, trained)), _adapted(step, trained[-1])
    return _need(recipe, device, micro_batch, trained[-1], adapted=adapted, opened=opened).recomputed


def _opens(train: Collection[str]) -> bool:
    """Whether old rows train: this and every later stage hold their masters."""
    return any(g.endswith((".old", ".low")) for g in train)


def _adapted(step: str, train: Collection[str]) -> bool:
    return "lora" in train or step == "41-instruct"


@dataclass(frozen=True)
class _Need:
    """Bytes and arithmetic of one stage; `rows` a forward pass."""

    rows: int
    memory: float
    activations: float
    old_rows: float
    flops: float
    recomputed: bool


def _need(recipe: Recipe, device: Device, rows: int, train: Collection[str], *, adapted: bool, opened: bool) -> _Need:
    training, shape = recipe.training, recipe.base.shape
    rows = min(rows, max(1, training.tokens_per_step // training.window))
    together = rows * training.window
    fixed = state_bytes(recipe, train, adapted=adapted, opened=opened)
    without = state_bytes(recipe, [g for g in train if not _opens([g])], adapted=adapted, opened=False)
    rest = fixed + logit_bytes(matrix_rows(recipe), together) + _LIBRARIES["cpu" if device.name == "cpu" else "cuda"]
    if device.name == "cpu" and adapted:
        rest += _ADAPTERS + (2 * body_numbers(shape) if recipe.lora.body == "nf4" else 0)
    modules = recipe.lora.modules if adapted else ()
    moving = together * activation_bytes(shape, train, modules)
    flops = flops_per_token(recipe, train, adapted=adapted)
    recomputed = keeps_graph(train) and (rest + moving) / _GIB > device.memory_gb * _USABLE
    if recomputed:
        moving = together * activation_bytes(shape, train, modules, recomputed=True)
        flops += 2.0 * body_numbers(shape)
    return _Need(rows, rest + moving, moving, fixed - without, flops, recomputed)


def _stage(
    recipe: Recipe, device: Device, need: _Need, step: str, name: str, train: tuple[str, ...], wanted: int
) -> StageForecast:
    training = recipe.training
    a_step = max(1, training.tokens_per_step // training.window) * training.window
    tokens = max(1, round(wanted / a_step)) * a_step
    seconds = tokens * need.flops / (device.tflops * device.efficiency * 1e12)
    return StageForecast(
        step=step,
        name=name,
        train=tuple(train),
        tokens=tokens,
        memory_gb=round(need.memory / _GIB, 2),
        activations_gb=round(need.activations / _GIB, 2),
        old_rows_gb=round(need.old_rows / _GIB, 2),
        hours=round(seconds / 3600, 3),
        fits=need.memory / _GIB <= device.memory_gb * _USABLE,
        device=device.name,
        device_memory_gb=device.memory_gb,
        micro_batch=need.rows,
        gflops_per_token=round(need.flops / 1e9, 3),
        trained=trained_numbers(recipe, train),
        recomputed=need.recomputed,
        note="; ".join(n for n in (_degenerate(recipe, step), _RECOMPUTED if need.recomputed else "") if n),
    )


def _degenerate(recipe: Recipe, step: str) -> str:
    """On a tied base a new row is one value: stages of one route and of the other move the same numbers."""
    at = _STEP_KEYS.index(step) if step in _STEP_KEYS else 0
    moved = [values_moved(recipe, s.train) for s in recipe.stage[: at + 1]]
    routes = {g.partition(".")[0] for s in recipe.stage[: at + 1] for g in s.train if g.endswith(".new")}
    if step not in _STEP_KEYS or moved[-1] not in moved[:-1] or moved[-1] != {"new"} or len(routes) < 2:
        return ""
    return (
        f"moves the values that stage {moved.index(moved[-1]) + 1} moved, by another route: the base is tied; "
        "init.row_untied = true gives each route its own"
    )


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
