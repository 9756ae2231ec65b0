"""Train new output rows over an `OutputCache`, several settings side by side, each stopped by held-out text.

All settings see the same tokens in the same order and share each product with the hidden states. Rows are overfitted
easily by many passes, so the last batches are never trained on; after each epoch they say how good the rows are, and a
setting that got no better is done. What comes out of a setting are its rows at its best epoch. The last batches must be
of other documents: rows that learn one law by heart are better on the rest of this law and worse on any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from vocabgraft.errors import ModelError
from vocabgraft.training.cached import Block, OutputCache
from vocabgraft.training.loop import Schedule
from vocabgraft.training.objective import capped

_TOGETHER = 256  # tokens whose logits are held: with 4 settings of 6,143 rows 25 MB in float32


@dataclass(frozen=True)
class Setting:
    """One way to train. lr: peak rate. weight_decay: as AdamW's. pull: weight of the squared distance from the start,
    a row's sum, so that rows that hardly occur stay where they began."""

    lr: float
    weight_decay: float = 0.0
    pull: float = 0.0


@dataclass
class Outcome:
    """What a setting came to: its best rows (N, D) float32, and nats a token by epoch. held_out[0] is of the start."""

    setting: Setting
    rows: Tensor
    held_out: list[float] = field(default_factory=list)
    trained: list[float] = field(default_factory=list)

    @property
    def best(self) -> int:
        """Epoch of the best held-out loss; 0 when no training helped."""
        return int(np.argmin(self.held_out))


def train_cached(
    cache: OutputCache,
    start: Tensor,
    settings: Sequence[Setting],
    *,
    held_out: int,
    epochs: int,
    seed: int,
    warmup: float = 0.1,
    clip: float = 1.0,
    row_epsilon: float = 1e-4,
    dtype: torch.dtype = torch.bfloat16,
    on_batch: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Outcomes of the settings, in their order, from rows `start` (N, D); a step is a batch of the cache.

    held_out: how many batches at the end only judge. dtype: type in which rows are multiplied, as the live matrix
    would. The order of batches is a pure function of (seed, epoch). Raises ModelError for a cache that leaves none to
    train on or none to judge by, and for a loss that is not finite.
    """
    if not 0 < held_out < len(cache):
        raise ModelError(
            f"{cache.folder}: {len(cache)} batches, {held_out} of them held out; at least one of each is needed"
        )
    learnt, kept = range(len(cache) - held_out), range(len(cache) - held_out, len(cache))
    outcomes = [Outcome(s, start.detach().float().clone()) for s in settings]
    running = [_Running(o, start, epochs * len(learnt), warmup, clip, row_epsilon) for o in outcomes]
    _look(cache, kept, running, dtype)
    for epoch in range(epochs):
        sums = np.zeros(len(running))
        for number in order(cache, learnt, seed, epoch):
            block = cache.block(number)
            losses, gradients = loss_and_gradients(block, [r.rows for r in running], cache.softcap, dtype)
            for r, loss, gradient in zip(running, losses, gradients, strict=True):
                r.step(loss, gradient)
            sums += [loss * len(block) for loss in losses]
            on_batch()
        total = sum(cache.tokens_of(n) for n in learnt)
        for r, nats in zip(running, sums, strict=True):
            r.outcome.trained.append(round(float(nats) / total, 6))
        _look(cache, kept, running, dtype)
        running = [r for r in running if r.outcome.best == epoch + 1]
        if not running:
            break
    return outcomes


def order(cache: OutputCache, numbers: Sequence[int], seed: int, epoch: int) -> list[int]:
    """Batches of an epoch: shards in a random order, and so the batches of each, so that a shard is read once."""
    rng = np.random.default_rng([seed, 2, epoch])
    shards: dict[str, list[int]] = {}
    for n in numbers:
        shards.setdefault(cache.shard_of(n), []).append(n)
    names = sorted(shards)
    return [int(n) for s in rng.permutation(len(names)) for n in rng.permutation(shards[names[int(s)]])]


@torch.no_grad()
def loss_and_gradients(
    block: Block, rows: Sequence[Tensor], softcap: float | None, dtype: torch.dtype
) -> tuple[list[float], list[Tensor]]:
    """Mean nats a token, and its gradient (N, D) float32, for each set of rows (N, D)."""
    sets, count = len(rows), len(rows[0])
    live = torch.cat([r.to(dtype) for r in rows])
    losses = torch.zeros(sets, dtype=torch.float64, device=live.device)
    gradient = torch.zeros(len(live), live.shape[1], device=live.device)
    for at in range(0, len(block), _TOGETHER):
        part = block.part(slice(at, at + _TOGETHER), live.device)
        hidden, place = part.hidden.to(dtype), part.place.long()
        raw = (hidden @ live.T).float()
        logits = capped(raw, softcap).view(len(hidden), sets, count)
        whole = torch.logaddexp(part.old[:, None], logits.logsumexp(2))
        new = place >= 0
        target = part.target[:, None].expand(-1, sets).clone()
        target[new] = logits[new].gather(2, place[new][:, None, None].expand(-1, sets, 1))[:, :, 0]
        losses += (whole - target).double().sum(0)
        p = (logits - whole[:, :, None]).exp_()
        taken = p[new]
        p[new] = taken.scatter_add(
            2, place[new][:, None, None].expand(-1, sets, 1), taken.new_full((len(taken), sets, 1), -1.0)
        )
        slope = p.flatten(1)
        if softcap is not None:
            slope = slope * (1 - (raw / softcap).tanh().square())
        gradient += (slope.to(dtype).T @ hidden).float()
    mean = max(1, len(block))
    return (losses / mean).tolist(), list((gradient / mean).view(sets, count, -1).unbind())


@torch.no_grad()
def held_out_nats(
    cache: OutputCache, numbers: Sequence[int], rows: Sequence[Tensor], dtype: torch.dtype
) -> list[float]:
    """Mean nats a token on some batches, for each set of rows."""
    sums, tokens = np.zeros(len(rows)), 0
    for number in numbers:
        block = cache.block(number)
        losses, _ = loss_and_gradients(block, rows, cache.softcap, dtype)
        sums += [loss * len(block) for loss in losses]
        tokens += len(block)
    return [float(s) / max(1, tokens) for s in sums]


class _Running:
    """A setting in training."""

    def __init__(
        self, outcome: Outcome, start: Tensor, steps: int, warmup: float, clip: float, row_epsilon: float
    ) -> None:
        s = outcome.setting
        self.outcome, self._start = outcome, start.detach().float()
        self._schedule = Schedule(("output.new",), steps, lr_new=s.lr, warmup=warmup, clip=clip)
        self.rows = nn.Parameter(start.detach().float().clone())
        self._optimizer = torch.optim.AdamW(
            [self.rows], lr=s.lr, betas=(0.9, 0.95), eps=row_epsilon, weight_decay=s.weight_decay, fused=True
        )
        self._done = 0

    def step(self, loss: float, gradient: Tensor) -> None:
        """One update."""
        if not np.isfinite(loss):
            raise ModelError(f"loss is {loss} at lr {self.outcome.setting.lr:g}, step {self._done}; lower the rate")
        if self.outcome.setting.pull:
            gradient = gradient + 2 * self.outcome.setting.pull * (self.rows.detach() - self._start)
        self.rows.grad = gradient
        torch.nn.utils.clip_grad_norm_([self.rows], self._schedule.clip)
        for group in self._optimizer.param_groups:
            group["lr"] = self.outcome.setting.lr * self._schedule.factor(self._done)
        self._optimizer.step()
        self._done += 1


def _look(cache: OutputCache, kept: Sequence[int], running: Sequence[_Running], dtype: torch.dtype) -> None:
    """Measure held-out text; keep rows that are the best so far."""
    found = held_out_nats(cache, kept, [r.rows.detach() for r in running], dtype)
    for r, nats in zip(running, found, strict=True):
        r.outcome.held_out.append(round(nats, 6))
        if r.outcome.best == len(r.outcome.held_out) - 1:
            r.outcome.rows = r.rows.detach().clone()
