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


@torch.no_grad()
def token_nats(hidden: Tensor, targets: Tensor, matrix: Tensor, softcap: float | None = None) -> Tensor:
    """Negative log-likelihood in nats of each target (M,) from hidden states (M, D) and rows (V, D)."""
    found = []
    for h, t in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
        logits = _logits(h, matrix, softcap)[0].float()
        found.append(logits.logsumexp(1) - logits.gather(1, t[:, None])[:, 0])
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
) -> tuple[float, Tensor | None]:
    """Loss times `weight`, and its gradient for the hidden states (M, D) when wanted.

    Row gradients are added to the masters' buffers as `groups` asks ('output.new', 'output.old').
    """
    matrix = rows.live["output"]
    d_hidden = torch.empty_like(hidden) if want_hidden else None
    total = 0.0
    for start in range(0, len(hidden), CHUNK):
        h, t = hidden[start : start + CHUNK].to(matrix.dtype), targets[start : start + CHUNK]
        logits, slope = _logits(h, matrix, softcap)
        log_p = torch.log_softmax(logits, 1, dtype=torch.float32)
        total -= float(log_p.gather(1, t[:, None]).sum()) * weight
        d_logits = log_p.exp_()
        d_logits[torch.arange(len(t), device=t.device), t] -= 1.0
        if slope is not None:
            d_logits *= slope
        d_logits = d_logits.to(matrix.dtype)
        if d_hidden is not None:
            d_hidden[start : start + CHUNK] = (d_logits @ matrix) * weight
        if "output.new" in groups:
            part = d_logits[:, rows.ids].float()
            grad_of(rows.new["output"]).addmm_(part.T, h.float(), alpha=weight)
        if "output.old" in groups:
            grad_of(rows.old["output"]).add_(d_logits.T @ h, alpha=weight)
    return total, d_hidden


def _logits(hidden: Tensor, matrix: Tensor, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """Logits (M, V) in the matrix's type, and with a soft cap the slope d capped / d raw in float32."""
    logits = hidden.to(matrix.dtype) @ matrix.T
    if softcap is None:
        return logits, None
    tanh = torch.tanh(logits.float() / softcap)
    return tanh * softcap, 1 - tanh * tanh
