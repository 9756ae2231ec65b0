"""The one training loop: seven stages and instruction tuning are the same loop with other groups.

    x    = rows.look_up(tokens)              a leaf: the input route's gradient is read off it
    h    = body(x)                           with a graph only when inputs or adapters train
    loss = head(h)                           gradients for hidden states and rows, as asked
    h.backward(dh); rows.add_input_gradient  then clip, AdamW (Loshchilov & Hutter, arXiv 1711.05101), write through

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

from vocabgraft.corpus.mix import NO_TARGET
from vocabgraft.corpus.mix import Rows as Batch
from vocabgraft.embedding.rows import Rows, hash_tensor
from vocabgraft.errors import ModelError
from vocabgraft.models.load import decoder_of
from vocabgraft.team import ALONE, Team
from vocabgraft.training.backends import Backend, Head, head_of
from vocabgraft.training.checkpoint import Checkpoints, Snapshot
from vocabgraft.training.distill import Lesson, Teacher
from vocabgraft.training.graft import Graft
from vocabgraft.training.lora import silenced
from vocabgraft.training.objective import backward_through_head
from vocabgraft.training.signals import held_signals

if TYPE_CHECKING:
    from vocabgraft.training.cached import Block, OutputCache


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
    checkpoint_seconds: float = 120.0,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    teacher: Teacher | None = None,
    cache: OutputCache | None = None,
    retain: float = 0.0,
    team: Team = ALONE,
    backend: Backend = "ours",
) -> Trained:
    """Run the schedule on a graft, in place; continues from the newest whole checkpoint.

    With a teacher, tokens are learnt as it sees them, not as they stand in the text. With a cache, step n trains output
    rows on its batch n (again from the first after the last), and `batch_at` is not asked. retain: weight of the
    distance that hidden states of rows without a new token have from those without adapters, beside the loss.
    backend: kernels of the loss. team: the processes that share each batch; all call this alike, and only the one that
    leads writes checkpoints.
    SIGTERM and SIGINT wait for the end of the step and a checkpoint. Raises ModelError on a loss that is not finite,
    before the update is applied.
    """
    if cache and any(not g.startswith("output.") for g in schedule.groups):
        raise ModelError(f"{', '.join(schedule.groups)}: kept hidden states serve output rows alone")
    softcap = getattr(graft.model.config.get_text_config(), "final_logit_softcapping", None)
    head = head_of(backend, device=graft.rows.live["output"].device.type, softcap=softcap)
    named = trainable(graft, schedule)
    _drop_gradients(named)  # a training that failed before may have left some
    optimizer = _adamw(named, schedule)
    start, losses = _resume(graft, named, optimizer, checkpoints)
    began = saved = time.monotonic()
    tokens = 0
    with held_signals() as stopping:
        for step in range(start, schedule.steps):
            if cache:
                block = cache.block(step % len(cache))
                loss, size, shown = _from_cache(graft, block, schedule.groups), len(block), block.goal[:8]
            else:
                batch = batch_at(step)
                mine, weight = team.share(batch), _mean_weight(batch)
                loss = _accumulate(graft, mine, schedule.groups, micro_batch, weight, teacher, retain, head)
                size, shown = batch.tokens.size, batch.tokens[0, :8]
            team.add_up([p for _, p, _ in named])
            loss, stops = team.total(loss, float(stopping()))
            if not math.isfinite(loss):
                raise ModelError(
                    f"loss is {loss} at step {step}, tokens of its first row {shown.tolist()}; "
                    "nothing was updated. Lower the stage's lr, or look at that text"
                )
            _update(named, optimizer, schedule, step)
            graft.rows.write()
            losses.append(loss)
            tokens += size
            on_step(step, loss)
            due = time.monotonic() - saved > checkpoint_seconds or stops
            if team.leads and checkpoints and due and step + 1 < schedule.steps:
                checkpoints.save(Snapshot(step + 1, _tensors(named, optimizer), losses))
                saved = time.monotonic()
            if stops:
                break
    _drop_gradients(named)
    seconds = time.monotonic() - began
    each = (f"{name}:{hash_tensor(value.reshape(-1))}" for name, value in sorted(_tensors(named, optimizer).items()))
    state = hashlib.sha256("".join(each).encode()).hexdigest()
    return Trained(schedule.steps, tokens, losses, seconds, state)


def trainable(graft: Graft, schedule: Schedule) -> list[tuple[str, nn.Parameter, float]]:
    """(name, parameter, peak rate) of exactly what the groups name; other adapters are frozen."""
    for adapter in graft.adapters.values():
        adapter.requires_grad_("lora" in schedule.groups)
    if any(g.endswith(".old") for g in schedule.groups):
        graft.rows.open_old()
    rates = {"new": schedule.lr_new, "old": schedule.lr_old}
    found = [(n, p, rates[n.split(".")[-1]]) for n, p in graft.rows.parameters(schedule.groups)]
    if "lora" in schedule.groups:
        if not graft.adapters:
            raise ModelError("the stage trains 'lora' but the graft has no adapters")
        found += [(f"lora:{n}", p, schedule.lr_lora) for n, p in graft.adapters.items()]
    missing = [n for n, _, rate in found if rate is None]
    if missing:
        raise ModelError(f"no learning rate for {missing[0]}")
    return [(n, p, float(rate or 0.0)) for n, p, rate in found]


def _drop_gradients(named: list[tuple[str, nn.Parameter, float]]) -> None:
    for _, parameter, _ in named:
        parameter.grad = None


def _adamw(named: list[tuple[str, nn.Parameter, float]], schedule: Schedule) -> torch.optim.AdamW:
    # Through the output route a row that no text holds still has a tiny gradient at every step, and AdamW would make
    # full steps of it. A larger epsilon leaves those rows nearly where they are (docs/log.md).
    epsilons = {n: 1e-8 if n.startswith("lora:") else schedule.row_epsilon for n, _, _ in named}
    groups = [{"params": [p], "lr": rate, "peak": rate, "eps": epsilons[n]} for n, p, rate in named]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=schedule.weight_decay, fused=True)


def _accumulate(
    graft: Graft,
    batch: Batch,
    groups: tuple[str, ...],
    micro_batch: int,
    weight: float | None = None,
    teacher: Teacher | None = None,
    retain: float = 0.0,
    head: Head = backward_through_head,
) -> float:
    """Gradients of the loss over a batch's targets, each counted with `weight` (None: their mean), whatever the
    micro-batch."""
    rows = graft.rows
    weight = weight or _mean_weight(batch)
    loss = 0.0
    for at in range(0, len(batch), micro_batch):
        part = batch.take(range(at, min(at + micro_batch, len(batch))))
        loss += _forward_backward(graft, part, groups, weight, teacher, retain, head)
    _drop_old_gradient_of_new(rows)
    return loss


def _mean_weight(batch: Batch) -> float:
    return 1.0 / max(1, int((batch.targets != NO_TARGET).sum()))


def _from_cache(graft: Graft, block: Block, groups: tuple[str, ...]) -> float:
    """Gradients of the mean loss over a batch that the head has seen before."""
    device = graft.rows.live["output"].device
    loss, _ = backward_through_head(
        block.hidden.to(device),
        block.goal.to(device).long(),
        graft.rows,
        groups,
        weight=1.0 / max(1, len(block)),
        want_hidden=False,
        softcap=getattr(graft.model.config.get_text_config(), "final_logit_softcapping", None),
        workspace=graft.workspace,
    )
    _drop_old_gradient_of_new(graft.rows)
    return loss


def _drop_old_gradient_of_new(rows: Rows) -> None:
    """At new ids the old matrix is overwritten by the new rows."""
    for master in rows.old.values():
        if master.grad is not None:
            master.grad[rows.ids] = 0.0


def _forward_backward(
    graft: Graft,
    part: Batch,
    groups: tuple[str, ...],
    weight: float,
    teacher: Teacher | None,
    retain: float,
    head: Head,
) -> float:
    rows = graft.rows
    device = rows.live["input"].device
    tokens = torch.from_numpy(part.tokens).to(device)
    targets = torch.from_numpy(part.targets).to(device)
    into_input = any(g.startswith("input.") for g in groups)
    needs_graph = into_input or "lora" in groups
    x = rows.look_up(tokens).requires_grad_(into_input)
    with torch.set_grad_enabled(needs_graph):
        hidden = hidden_states(graft.model, x, torch.from_numpy(part.positions).to(device))
    counted = targets != NO_TARGET
    lesson = teacher.lesson(part) if teacher else None
    loss, gradient = head(
        hidden.detach()[counted],
        targets[counted],
        rows,
        groups,
        weight=weight,
        want_hidden=needs_graph,
        softcap=getattr(graft.model.config.get_text_config(), "final_logit_softcapping", None),
        workspace=graft.workspace,
        goals=lesson.nats[counted] if lesson else None,
    )
    if needs_graph:
        whole = torch.zeros_like(hidden)
        whole[counted] = gradient.to(whole.dtype)
        if teacher and lesson:
            apart, gradient = lesson.hidden_gradient(hidden.detach(), counted, weight * teacher.strength)
            whole += gradient.to(whole.dtype)
            loss += apart
        if retain:
            loss += _hold(graft, x, part, hidden.detach(), counted, weight * retain, whole)
        hidden.backward(whole)
    if into_input:
        rows.add_input_gradient(tokens, x.grad, groups)
    return loss


def _hold(
    graft: Graft, x: Tensor, part: Batch, hidden: Tensor, counted: Tensor, strength: float, into: Tensor
) -> float:
    """Distance from the base's own hidden states on rows without a new token; its gradient is added to `into`."""
    old = ~graft.rows.is_new[torch.from_numpy(part.tokens).to(hidden.device)].any(1)
    if not bool(old.any()):
        return 0.0
    with torch.no_grad(), silenced(graft.model):
        base = hidden_states(graft.model, x.detach()[old], torch.from_numpy(part.positions).to(hidden.device)[old])
    lesson = Lesson(hidden=base, nats=base.new_empty(0))
    apart, gradient = lesson.hidden_gradient(hidden[old], counted[old], strength)
    into[old] += gradient.to(into.dtype)
    return apart


def hidden_states(model: Any, x: Tensor, positions: Tensor) -> Tensor:
    """Last hidden states (B, T, D) of packed rows.

    Documents in a row stay apart only with restarting positions, no mask and no cache (transformers,
    masking_utils.find_packed_sequence_indices); anything else contaminates silently.
    """
    out = decoder_of(model)(inputs_embeds=x, position_ids=positions, attention_mask=None, use_cache=False)
    return out.last_hidden_state


def _update(
    named: list[tuple[str, nn.Parameter, float]], optimizer: torch.optim.AdamW, schedule: Schedule, step: int
) -> None:
    norm = torch.nn.utils.clip_grad_norm_([p for _, p, _ in named if p.grad is not None], schedule.clip)
    if not bool(torch.isfinite(norm)):
        raise ModelError(f"the gradient is not finite at step {step}; nothing was updated. Lower the stage's lr")
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * schedule.factor(step)
    optimizer.step()
    for _, parameter, _ in named:
        if parameter.grad is not None:
            parameter.grad.zero_()


def _tensors(named: list[tuple[str, nn.Parameter, float]], optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, parameter, _ in named:
        found[f"value/{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"{key}/{name}"] = value
    return found


@torch.no_grad()
def _resume(
    graft: Graft,
    named: list[tuple[str, nn.Parameter, float]],
    optimizer: torch.optim.AdamW,
    checkpoints: Checkpoints | None,
) -> tuple[int, list[float]]:
    snapshot = checkpoints.latest() if checkpoints else None
    if snapshot is None:
        return 0, []
    for name, parameter, _ in named:
        parameter.copy_(snapshot.tensors[f"value/{name}"])
        moments = {k: snapshot.tensors.get(f"{k}/{name}") for k in ("step", "exp_avg", "exp_avg_sq")}
        if moments["step"] is not None:
            optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in moments.items() if v is not None}
    graft.rows.write()
    return snapshot.step, list(snapshot.losses)
