"""Cross-entropy over a large vocabulary, in parts, with exactly the gradients that are wanted.

Logits of 262,144 entries for 1,024 tokens are 1 GB in float32; they are never held together. A span's logits are formed
in the matrix's type and become their own gradient, chunk by chunk in float32. From it come the gradients for the hidden
states (when inputs or body train), for the new rows only (a (span, N) slice, not (V, D)) and for all rows (stages 4 to
6). Row gradients are summed in float32. `weight` multiplies everything, so a step's micro-batches add up to its mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from vocabgraft.embedding.low import grad_of
from vocabgraft.embedding.rows import Rows

CHUNK = 16  # tokens of one softmax in float32
SCORED = 128  # tokens of one product where no gradient is wanted, a multiple of CHUNK
SPAN = 512  # tokens of one product for gradients: fewer passes over (V, D) in float32 …
TILE = 4096  # … by rows that fit a core's cache together with their gradient (docs/log.md: 2.7 times faster)


class Workspace:
    """The large buffers, made once and used again.

    Asking for them anew costs more than the arithmetic in them: the system hands out fresh pages each time
    (docs/log.md). For V = 262,144 in bf16: 17 MB of float32, 268 MB of a span's logits, then their gradient.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
        """A buffer of this shape whose content is undefined; the last chunk may be a shorter part of it."""
        held = self._buffers.get(name)
        fits = held is not None and held.shape[0] >= shape[0] and held.shape[1:] == shape[1:]
        if held is None or not fits or held.dtype != dtype or held.device != like.device:
            held = self._buffers[name] = torch.empty(shape, dtype=dtype, device=like.device)
        return held[: shape[0]]

    def clear(self) -> None:
        """Let the buffers go."""
        self._buffers.clear()


@torch.no_grad()
def token_nats(
    hidden: Tensor,
    targets: Tensor,
    matrix: Tensor,
    softcap: float | None = None,
    workspace: Workspace | None = None,
    without: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood in nats of each target (M,) from hidden states (M, D) and rows (V, D), of which those in
    `without` (N,) count as if they were not there."""
    workspace = workspace or Workspace()
    each = zip(chunks_of_logits(hidden, matrix, workspace), targets.split(CHUNK), strict=True)
    found = [_softmax(logits, t, softcap, workspace, without)[1] for logits, t in each]
    return torch.cat(found) if found else torch.zeros(0)


def chunks_of_logits(hidden: Tensor, matrix: Tensor, workspace: Workspace) -> Iterator[Tensor]:
    """Yield logits (CHUNK, V) of hidden states (M, D) in the matrix's type; each may be written over, and holds until
    the next."""
    for some in hidden.split(SCORED):
        yield from _logits(some.to(matrix.dtype), matrix, workspace).split(CHUNK)


@torch.no_grad()
def backward_through_head(
    hidden: Tensor,
    targets: Tensor,
    rows: Rows,
    groups: Collection[str],
    *,
    weight: float,
    want_hidden: bool,
    softcap: float | None = None,
    workspace: Workspace | None = None,
    goals: Tensor | None = None,
) -> tuple[float, Tensor | None]:
    """Loss times `weight`, and its gradient for the hidden states (M, D) when wanted.

    Row gradients are added to the masters' buffers as `groups` asks ('output.new', 'output.old', 'output.low'). With
    goals (M,), nats that a teacher gives the targets, the loss of a token is not its nats but their distance from the
    goal (Huber).
    """
    matrix, low = rows.live["output"], rows.low.get("output")
    workspace = workspace or Workspace()
    d_hidden = torch.empty_like(hidden) if want_hidden else None
    total = 0.0
    for at in range(0, len(hidden), SPAN):
        span, its_targets = hidden[at : at + SPAN].to(matrix.dtype), targets[at : at + SPAN]
        d_logits = _logits(span, matrix, workspace)
        if low is not None:
            low.add_logits(span, d_logits)
        for start in range(0, len(span), CHUNK):
            part = slice(start, start + CHUNK)
            goal = None if goals is None else goals[at : at + SPAN][part]
            total += weight * _to_gradient(d_logits[part], its_targets[part], softcap, workspace, goal)
        if d_hidden is not None:
            d_hidden[at : at + SPAN] = (d_logits @ matrix) * weight
        if low is not None and "output.low" in groups:
            low.add_output_gradient(d_logits, span, weight)
        if low is not None and d_hidden is not None:
            low.add_hidden_gradient(d_logits, weight, d_hidden[at : at + SPAN])
        if "output.new" in groups:
            gradient = d_logits[:, rows.ids].float()
            grad_of(rows.new["output"]).addmm_(gradient.T, span.float(), alpha=weight)
        if "output.old" in groups:
            _add_row_gradient(grad_of(rows.old["output"]), d_logits, span, weight, workspace)
    return total, d_hidden


def capped(logits: Tensor, softcap: float | None) -> Tensor:
    """Gemma 2's soft cap; Gemma 3 has none."""
    return logits if softcap is None else torch.tanh(logits / softcap) * softcap


def _logits(hidden: Tensor, matrix: Tensor, workspace: Workspace) -> Tensor:
    """(M, V), in a buffer of the workspace and the matrix's type."""
    place = workspace.take("logits", (len(hidden), len(matrix)), matrix, matrix.dtype)
    return torch.mm(hidden, matrix.T, out=place)


def _to_gradient(
    logits: Tensor, targets: Tensor, softcap: float | None, workspace: Workspace, goals: Tensor | None
) -> float:
    """Sum of the losses of one chunk; its logits (M, V) are overwritten with the gradient for them."""
    p, losses, slope = _softmax(logits, targets, softcap, workspace)
    p[torch.arange(len(targets), device=targets.device), targets] -= 1.0
    if slope is not None:
        p *= slope
    if goals is not None:
        p *= (losses - goals).clamp(-1, 1)[:, None]
        losses = torch.nn.functional.huber_loss(losses, goals, reduction="none")
    logits.copy_(p)
    return float(losses.sum())


def _add_row_gradient(into: Tensor, d_logits: Tensor, hidden: Tensor, weight: float, workspace: Workspace) -> None:
    """into (V, D) += weight * d_logits.T (V, M) @ hidden (M, D), tile by tile: products in bf16, the sum in float32."""
    tile = workspace.take("tile", (min(TILE, len(into)), into.shape[1]), hidden, hidden.dtype)
    for start in range(0, len(into), TILE):
        part = into[start : start + TILE]
        product = torch.mm(d_logits[:, start : start + TILE].T, hidden, out=tile[: len(part)])
        part.add_(product, alpha=weight)


def _softmax(
    logits: Tensor, targets: Tensor, softcap: float | None, workspace: Workspace, without: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Probabilities (M, V) and nats of the targets (M,) in float32; with a soft cap the slope d capped / d raw.

    In place and by hand, because torch's own softmax would ask for another (M, V) block.
    """
    p = workspace.take("p", tuple(logits.shape), logits, torch.float32).copy_(logits)
    slope = None
    if softcap is not None:
        p.div_(softcap).tanh_()
        slope = 1 - p * p
        p.mul_(softcap)
    if without is not None:
        p[:, without] = -torch.inf
    p.sub_(p.amax(1, keepdim=True))
    at_target = p.gather(1, targets[:, None])[:, 0]
    total = p.exp_().sum(1, keepdim=True)
    return p.div_(total), total[:, 0].log() - at_target, slope
