"""Gradients of one batch: a forward pass, the head in blocks, and a backward pass where anything below it trains.

x    = rows.look_up(tokens)              a leaf: the input route's gradient is read off it
h    = body(x)                           with a graph only when inputs or adapters train
loss = head(h)                           gradients for hidden states and rows, as asked
h.backward(dh); rows.add_input_gradient
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vocabgraft.corpus.mix import NO_TARGET
from vocabgraft.corpus.mix import Rows as Batch
from vocabgraft.embedding.rows import Rows
from vocabgraft.models.load import softcap_of
from vocabgraft.models.packed import hidden_states
from vocabgraft.training.backends import Head
from vocabgraft.training.distill import Lesson, Teacher
from vocabgraft.training.graft import Graft
from vocabgraft.training.lora import silenced
from vocabgraft.training.objective import backward_through_head

if TYPE_CHECKING:
    from vocabgraft.training.cached import Block


@dataclass(frozen=True)
class Gradients:
    """Adds the gradients of what `groups` name to the masters, a batch at a time, `micro_batch` rows at once.

    teacher: tokens are learnt as it sees them. retain: weight of the distance that hidden states of rows without a new
    token have from those without adapters, beside the loss.
    """

    graft: Graft
    groups: Collection[str]
    micro_batch: int
    head: Head = backward_through_head
    teacher: Teacher | None = None
    retain: float = 0.0

    def of(self, batch: Batch, weight: float | None = None) -> float:
        """The loss over a batch's targets, each counted with `weight` (None: their mean), whatever the micro-batch."""
        weight = weight or mean_weight(batch)
        loss = 0.0
        for at in range(0, len(batch), self.micro_batch):
            loss += self._of_part(batch.take(range(at, min(at + self.micro_batch, len(batch)))), weight)
        _drop_old_gradient_of_new(self.graft.rows)
        return loss

    def of_kept(self, block: Block) -> float:
        """The mean loss over a batch whose hidden states are kept; output rows alone get gradients."""
        device = self.graft.rows.live["output"].device
        loss, _ = self._through_head(
            block.hidden.to(device), block.goal.to(device).long(), 1.0 / max(1, len(block)), want_hidden=False
        )
        _drop_old_gradient_of_new(self.graft.rows)
        return loss

    def _of_part(self, part: Batch, weight: float) -> float:
        graft, rows = self.graft, self.graft.rows
        device = rows.live["input"].device
        tokens, targets, positions = (
            torch.from_numpy(a).to(device) for a in (part.tokens, part.targets, part.positions)
        )
        into_input = any(g.startswith("input.") for g in self.groups)
        needs_graph = into_input or "lora" in self.groups
        x = rows.look_up(tokens).requires_grad_(into_input)
        with torch.set_grad_enabled(needs_graph):
            hidden = hidden_states(graft.model, x, positions)
        counted = targets != NO_TARGET
        lesson = self.teacher.lesson(part) if self.teacher else None
        loss, gradient = self._through_head(
            hidden.detach()[counted],
            targets[counted],
            weight,
            want_hidden=needs_graph,
            goals=lesson.nats[counted] if lesson else None,
        )
        if needs_graph:
            whole = torch.zeros_like(hidden)
            whole[counted] = gradient.to(whole.dtype)
            if self.teacher and lesson:
                apart, gradient = lesson.hidden_gradient(hidden.detach(), counted, weight * self.teacher.strength)
                whole += gradient.to(whole.dtype)
                loss += apart
            if self.retain:
                old = ~rows.is_new[tokens].any(1)
                loss += self.hold(x, positions, old, hidden.detach(), counted, weight * self.retain, whole)
            hidden.backward(whole)
        if into_input:
            rows.add_input_gradient(tokens, x.grad, self.groups)
        return loss

    def _through_head(
        self, hidden: Tensor, targets: Tensor, weight: float, *, want_hidden: bool, goals: Tensor | None = None
    ) -> tuple[float, Any]:
        graft = self.graft
        return self.head(
            hidden,
            targets,
            graft.rows,
            self.groups,
            weight=weight,
            want_hidden=want_hidden,
            softcap=softcap_of(graft.model),
            workspace=graft.workspace,
            goals=goals,
        )

    def hold(
        self, x: Tensor, positions: Tensor, old: Tensor, hidden: Tensor, counted: Tensor, strength: float, into: Tensor
    ) -> float:
        """Distance from the base's own hidden states in the rows `old` (B,); its gradient is added to `into`."""
        if not bool(old.any()):
            return 0.0
        with torch.no_grad(), silenced(self.graft.model):
            base = hidden_states(self.graft.model, x.detach()[old], positions[old])
        lesson = Lesson(hidden=base, nats=base.new_empty(0))
        apart, gradient = lesson.hidden_gradient(hidden[old], counted[old], strength)
        into[old] += gradient.to(into.dtype)
        return apart


def mean_weight(batch: Batch) -> float:
    """What each target of a batch counts in the mean."""
    return 1.0 / max(1, int((batch.targets != NO_TARGET).sum()))


def _drop_old_gradient_of_new(rows: Rows) -> None:
    """At new ids the old matrix is overwritten by the new rows."""
    for master in rows.old.values():
        if master.grad is not None:
            master.grad[rows.ids] = 0.0
