"""The one training loop: seven stages and instruction tuning are the same loop with other groups.

A step: gradients of its batch, clip, AdamW (Loshchilov & Hutter, arXiv 1711.05101), write through to the live model.
Batches are a pure function of the step, and a checkpoint holds everything else, so on one machine and thread
count a resumed training ends in the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vocabgraft.corpus.mix import Rows as Batch
from vocabgraft.embedding.rows import hash_tensor
from vocabgraft.errors import ModelError
from vocabgraft.models.load import softcap_of
from vocabgraft.team import ALONE, Team
from vocabgraft.training.backends import Backend, head_of
from vocabgraft.training.checkpoint import Checkpoints, Snapshot
from vocabgraft.training.distill import Teacher
from vocabgraft.training.gradients import Gradients, mean_weight
from vocabgraft.training.graft import Graft
from vocabgraft.training.guard import Guard
from vocabgraft.training.recompute import recomputed
from vocabgraft.training.signals import held_signals

if TYPE_CHECKING:
    from vocabgraft.training.cached import OutputCache

Named = list[tuple[str, nn.Parameter, float]]
"""(name, parameter, peak rate) of what trains."""


@dataclass(frozen=True)
class Schedule:
    """What trains, how fast, how long. Rates are peaks: linear warm-up, then a cosine down to a tenth."""

    groups: tuple[str, ...]
    steps: int
    lr_new: float | None = None
    lr_old: float | None = None
    lr_lora: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    row_epsilon: float = 1e-4
    low_rank: int = 16
    low_scale: float = 2.0
    """Of a change of old rows by few numbers ('input.low', 'output.low'; `embedding/low.py`)."""
    retain: float = 0.0
    """Weight of the distance from the base's own hidden states on text without new pieces (`training/gradients.py`)."""
    backend: Backend = "ours"
    """Kernels of the loss."""

    def factor(self, step: int) -> float:
        """Share of the peak rate at an update (0-based)."""
        warm = max(1, round(self.steps * self.warmup))
        if step < warm:
            return (step + 1) / warm
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))


@dataclass(frozen=True)
class Trained:
    """What a training did. Losses are nats per predicted token, one a step."""

    steps: int
    tokens: int
    losses: list[float]
    seconds: float
    optimizer: str
    """SHA-256 of the masters and their moments as the last step left them."""


def train(
    graft: Graft,
    batch_at: Callable[[int], Batch],
    schedule: Schedule,
    *,
    micro_batch: int,
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    teacher: Teacher | None = None,
    cache: OutputCache | None = None,
    guard: Guard | None = None,
    team: Team = ALONE,
    recompute: bool = False,
) -> Trained:
    """Run the schedule on a graft, in place; continues from the newest whole checkpoint.

    With a teacher, tokens are learnt as it sees them, not as they stand in the text. With a cache, step n trains output
    rows on its batch n (again from the first after the last), and `batch_at` is not asked. A guard may end the training
    earlier. recompute: see `training.recompute`. team: the processes that share each batch; all call this alike, and
    only the one that leads writes checkpoints and looks at the guard.
    SIGTERM and SIGINT wait for the end of the step and a checkpoint. Raises ModelError on a loss that is not finite,
    before the update is applied; ProofError where the guard refuses.
    """
    if cache and any(not g.startswith("output.") for g in schedule.groups):
        raise ModelError(f"{', '.join(schedule.groups)}: kept hidden states serve output rows alone")
    gradients = _gradients(graft, schedule, micro_batch, teacher)
    named = trainable(graft, schedule)
    _drop_gradients(named)  # a training that failed before may have left some
    state = _State(graft, named, _adamw(named, schedule), checkpoints, guard)
    state.load(checkpoints.latest() if checkpoints else None)
    began, tokens = time.monotonic(), 0
    with held_signals() as stopping, recomputed(graft.model, recompute and not cache):
        while state.done < schedule.steps:
            step = state.done
            if cache:
                block = cache.block(step % len(cache))
                loss, size, shown = gradients.of_kept(block), len(block), block.goal[:8]
            else:
                batch = batch_at(step)
                loss = gradients.of(team.share(batch), mean_weight(batch))
                size, shown = batch.tokens.size, batch.tokens[0, :8]
            team.add_up([p for _, p, _ in named])
            loss, stops = team.total(loss, float(stopping()))
            _refuse_infinite(loss, step, shown)
            state.update(schedule, loss)
            tokens += size
            on_step(step, loss)
            looked = guard is not None and guard.due(state.done, schedule.steps)
            if guard and looked and team.total(float(team.leads and not guard.holds(state.done)))[0]:
                state.go_back(team.tell(guard.last_good() if team.leads else None))
                break
            due = stops or (checkpoints and checkpoints.due) or (guard and looked and guard.roll_back)
            if team.leads and due and state.done < schedule.steps:
                state.save()
            if stops:
                break
    _drop_gradients(named)
    graft.rows.close_low()
    return Trained(state.done, tokens, state.losses, time.monotonic() - began, state.sha256())


def _gradients(graft: Graft, schedule: Schedule, micro_batch: int, teacher: Teacher | None) -> Gradients:
    head = head_of(schedule.backend, device=graft.rows.live["output"].device.type, softcap=softcap_of(graft.model))
    return Gradients(graft, schedule.groups, micro_batch, head, teacher, schedule.retain)


def _refuse_infinite(loss: float, step: int, shown: Any) -> None:
    if not math.isfinite(loss):
        raise ModelError(
            f"loss is {loss} at step {step}, tokens of its first row {shown.tolist()}; "
            "nothing was updated. Lower the stage's lr, or look at that text"
        )


def trainable(graft: Graft, schedule: Schedule) -> Named:
    """(name, parameter, peak rate) of exactly what the groups name; other adapters are frozen."""
    for adapter in graft.adapters.values():
        adapter.requires_grad_("lora" in schedule.groups)
    if any(g.endswith(".old") for g in schedule.groups):
        graft.rows.open_old()
    if any(g.endswith(".low") for g in schedule.groups):
        graft.rows.open_low(schedule.groups, schedule.low_rank, schedule.low_scale)
    rates = {"new": schedule.lr_new, "old": schedule.lr_old, "low_a": schedule.lr_lora, "low_b": schedule.lr_lora}
    found = [(n, p, rates[n.split(".")[-1]]) for n, p in graft.rows.parameters(schedule.groups)]
    if "lora" in schedule.groups:
        if not graft.adapters:
            raise ModelError("the stage trains 'lora' but the graft has no adapters")
        found += [(f"lora:{n}", p, schedule.lr_lora) for n, p in graft.adapters.items()]
    missing = [n for n, _, rate in found if rate is None]
    if missing:
        raise ModelError(f"no learning rate for {missing[0]}")
    return [(n, p, float(rate or 0.0)) for n, p, rate in found]


def _drop_gradients(named: Named) -> None:
    for _, parameter, _ in named:
        parameter.grad = None


def _adamw(named: Named, schedule: Schedule) -> torch.optim.AdamW:
    # Through the output route a row that no text holds still has a tiny gradient at every step, and AdamW would make
    # full steps of it. A larger epsilon leaves those rows nearly where they are (docs/log.md).
    epsilons = {n: 1e-8 if n.startswith("lora:") else schedule.row_epsilon for n, _, _ in named}
    groups = [{"params": [p], "lr": rate, "peak": rate, "eps": epsilons[n]} for n, p, rate in named]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=schedule.weight_decay, fused=True)


class _State:
    """What a step changes: masters and their moments, steps done, losses; and how it is saved and read back."""

    def __init__(
        self,
        graft: Graft,
        named: Named,
        optimizer: torch.optim.AdamW,
        checkpoints: Checkpoints | None,
        guard: Guard | None,
    ) -> None:
        self._graft, self._named, self._optimizer = graft, named, optimizer
        self._checkpoints, self._guard = checkpoints, guard
        self.done, self.losses = 0, list[float]()

    def update(self, schedule: Schedule, loss: float) -> None:
        """Clip, step, write through to the live model."""
        norm = torch.nn.utils.clip_grad_norm_([p for _, p, _ in self._named if p.grad is not None], schedule.clip)
        if not bool(torch.isfinite(norm)):
            raise ModelError(
                f"the gradient is not finite at step {self.done}; nothing was updated. Lower the stage's lr"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * schedule.factor(self.done)
        self._optimizer.step()
        for _, parameter, _ in self._named:
            if parameter.grad is not None:
                parameter.grad.zero_()
        self._graft.rows.write()
        self.done += 1
        self.losses.append(loss)

    def save(self) -> None:
        """Write a checkpoint; the last one that the guard found good stays beside it."""
        if self._checkpoints:
            looks = self._guard.looks if self._guard else []
            kept = [self._guard.last_good()] if self._guard and self._guard.roll_back and looks else []
            self._checkpoints.save(Snapshot(self.done, self._tensors(), self.losses, looks), kept)

    @torch.no_grad()
    def load(self, snapshot: Snapshot | None) -> None:
        """Go on from a checkpoint; None leaves everything as it is."""
        if snapshot is None:
            return
        for name, parameter, _ in self._named:
            parameter.copy_(snapshot.tensors[f"value/{name}"])
            moments = {k: snapshot.tensors.get(f"{k}/{name}") for k in ("step", "exp_avg", "exp_avg_sq")}
            if moments["step"] is not None:
                self._optimizer.state[parameter] = {
                    k: v.to(parameter.device) for k, v in moments.items() if v is not None
                }
        self._graft.rows.write()
        self.done, self.losses = snapshot.step, list(snapshot.losses)
        if self._guard:
            self._guard.looks[:] = snapshot.looks

    def go_back(self, step: int) -> None:
        """To the checkpoint of a step; what the guard saw since is still told."""
        looks = list(self._guard.looks) if self._guard else []
        snapshot = self._checkpoints.at(step) if self._checkpoints else None
        if snapshot is None:
            raise ModelError(f"the checkpoint of step {step}, to which the guard goes back, is damaged or gone")
        self.load(snapshot)
        if self._guard:
            self._guard.looks[:] = looks

    def sha256(self) -> str:
        """Of the masters and their moments."""
        each = (f"{name}:{hash_tensor(value.reshape(-1))}" for name, value in sorted(self._tensors().items()))
        return hashlib.sha256("".join(each).encode()).hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, parameter, _ in self._named:
            found[f"value/{name}"] = parameter.detach()
            for key, value in self._optimizer.state.get(parameter, {}).items():
                found[f"{key}/{name}"] = value
        return found
