"""Cross-entropy over a large vocabulary, in chunks, with exactly the gradients that are wanted.

Logits of 262,144 entries for 1,024 tokens are 1 GB in float32; they are never held together. Per chunk the
softmax is formed once and yields the loss, the gradient for the hidden states (when inputs or body train), for
the new rows only (a (chunk, N) slice, not (V, D)) and for all rows (stages 4 to 6). Products run in the matrix's
type, row gradients are summed in float32. `weight` multiplies everything, so a step's micro-batches add up to
its mean.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from vocabgraft.embedding.rows import Rows, grad_of

CHUNK = 128


class Workspace:
    """The large buffers of one chunk, made once and used again.

    Asking for them anew costs more than the arithmetic in them: the system hands out fresh pages each time
    (docs/log.md). For CHUNK = 128, V = 262,144, bf16: 67 MB + 134 MB, and (V, D) once old rows train.
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


@torch.no_grad()
def token_nats(
    hidden: Tensor, targets: Tensor, matrix: Tensor, softcap: float | None = None, workspace: Workspace | None = None
) -> Tensor:
    """Negative log-likelihood in nats of each target (M,) from hidden states (M, D) and rows (V, D)."""
    workspace = workspace or Workspace()
    found = []
    for h, t in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
        found.append(_softmax(h.to(matrix.dtype), t, matrix, softcap, workspace)[1])
    return torch.cat(found) if found else torch.zeros(0)


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
) -> tuple[float, Tensor | None]:
    """Loss times `weight`, and its gradient for the hidden states (M, D) when wanted.

    Row gradients are added to the masters' buffers as `groups` asks ('output.new', 'output.old').
    """
    matrix = rows.live["output"]
    workspace = workspace or Workspace()
    d_hidden = torch.empty_like(hidden) if want_hidden else None
    total = 0.0
    for start in range(0, len(hidden), CHUNK):
        h, t = hidden[start : start + CHUNK].to(matrix.dtype), targets[start : start + CHUNK]
        p, nats, slope = _softmax(h, t, matrix, softcap, workspace)
        total += float(nats.sum()) * weight
        p[torch.arange(len(t), device=t.device), t] -= 1.0
        if slope is not None:
            p *= slope
        # The logits are no longer needed: their buffer takes the gradient in the matrix's type.
        d_logits = workspace.take("logits", tuple(p.shape), matrix, matrix.dtype).copy_(p)
        if d_hidden is not None:
            d_hidden[start : start + CHUNK] = (d_logits @ matrix) * weight
        if "output.new" in groups:
            part = d_logits[:, rows.ids].float()
            grad_of(rows.new["output"]).addmm_(part.T, h.float(), alpha=weight)
        if "output.old" in groups:
            product = workspace.take("rows", tuple(matrix.shape), matrix, matrix.dtype)
            grad_of(rows.old["output"]).add_(torch.mm(d_logits.T, h, out=product), alpha=weight)
    return total, d_hidden


def _softmax(
    hidden: Tensor, targets: Tensor, matrix: Tensor, softcap: float | None, workspace: Workspace
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Probabilities (M, V) and nats of the targets (M,) in float32; with a soft cap the slope d capped / d raw.

    In place and by hand, because torch's own softmax would ask for another (M, V) block.
    """
    shape = (len(hidden), len(matrix))
    logits = torch.mm(hidden, matrix.T, out=workspace.take("logits", shape, matrix, matrix.dtype))
    p = workspace.take("p", shape, matrix, torch.float32).copy_(logits)
    slope = None
    if softcap is not None:
        p.div_(softcap).tanh_()
        slope = 1 - p * p
        p.mul_(softcap)
    p.sub_(p.amax(1, keepdim=True))
    at_target = p.gather(1, targets[:, None])[:, 0]
    total = p.exp_().sum(1, keepdim=True)
    return p.div_(total), total[:, 0].log() - at_target, slope
