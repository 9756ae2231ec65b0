"""The loss over a large vocabulary by other people's kernels, behind the same call as ours (`objective.py`).

Ours gives gradients for new rows alone and needs no graph; the others form the gradient of the whole matrix where any
row trains, and are here to be compared with and for GPUs where a fused kernel wins. Each is made safe or refused:

torch   `torch.nn.functional.linear_cross_entropy`, chunked. No soft cap.
liger   gives no gradient for the matrix when hidden states have none (liger-kernel 0.8.5: `grad_weight … if
        input_requires_grad`), so hidden states always get one here, wanted or not.
cce     its gradient filter skips blocks of small gradients, which is all that rare rows get: the unfiltered variant.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from vocabgraft.embedding.rows import Rows, grad_of
from vocabgraft.errors import MachineError, ModelError
from vocabgraft.training.objective import Workspace, backward_through_head

Backend = Literal["ours", "torch", "liger", "cce"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
_PACKAGES = {"liger": ("liger_kernel", "liger-kernel"), "cce": ("cut_cross_entropy", "cut-cross-entropy")}
Head = Callable[..., tuple[float, Tensor | None]]


def head_of(backend: Backend, *, device: str = "cpu", softcap: float | None = None) -> Head:
    """The function to call in place of `backward_through_head`.

    Raises MachineError where a package or its GPU is not there, ModelError for a model that the kernel cannot do.
    """
    if backend == "ours":
        return backward_through_head
    if backend == "torch" and softcap is not None:
        raise ModelError("torch's linear_cross_entropy has no soft cap, this model has one; take 'ours'")
    if backend in _PACKAGES:
        module, package = _PACKAGES[backend]
        if importlib.util.find_spec(module) is None:
            raise MachineError(f"package {package!r} is not installed; pip install {package}, or take 'ours'")
        if device == "cpu":
            raise MachineError(f"{package} has GPU kernels alone and this machine computes on its CPU; take 'ours'")
    kernel = {"torch": _torch, "liger": _liger, "cce": _cce}[backend]

    def call(
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
        if rows.low:
            raise ModelError(f"a low-rank change of old rows needs the loss backend 'ours', not {backend!r}")
        if goals is not None:
            raise ModelError(f"rows that a teacher teaches need the loss backend 'ours', not {backend!r}")
        return _through(kernel, hidden, targets, rows, groups, weight, want_hidden, softcap)

    return call


def _through(
    kernel: Callable[[Tensor, Tensor, Tensor, float | None], Tensor],
    hidden: Tensor,
    targets: Tensor,
    rows: Rows,
    groups: Collection[str],
    weight: float,
    want_hidden: bool,
    softcap: float | None,
) -> tuple[float, Tensor | None]:
    live = rows.live["output"]
    wanted = any(g.startswith("output.") for g in groups)
    h = hidden.detach().to(live.dtype).requires_grad_(want_hidden or wanted)
    matrix = live.detach().requires_grad_(wanted)
    if len(targets) == 0:
        return 0.0, torch.zeros_like(hidden) if want_hidden else None
    loss = kernel(h, matrix, targets, softcap) * weight
    if loss.requires_grad:
        loss.backward()
    if wanted and matrix.grad is None:
        raise ModelError("the loss kernel gave no gradient for the output matrix: nothing would train; take 'ours'")
    if wanted and matrix.grad is not None:
        if "output.new" in groups:
            grad_of(rows.new["output"]).add_(matrix.grad[rows.ids].float())
        if "output.old" in groups:
            grad_of(rows.old["output"]).add_(matrix.grad.float())
    return float(loss.detach()), h.grad.to(hidden.dtype) if want_hidden and h.grad is not None else None


def _torch(hidden: Tensor, matrix: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    function: Any = torch.nn.functional.linear_cross_entropy
    options = getattr(torch.nn, "LinearCrossEntropyOptions", None)
    # Chunks of V / D rows are one row on tiny models: there the plain path is the faster one.
    chunked = {"options": options()} if options is not None and len(matrix) > 64 * matrix.shape[1] else {}
    found: Tensor = function(hidden, matrix, targets, reduction="sum", **chunked)
    return found


def _liger(hidden: Tensor, matrix: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    found: Tensor = liger_fused_linear_cross_entropy(
        hidden, matrix, targets, reduction="sum", softcap=softcap, accum_dtype=torch.float32
    )
    return found


def _cce(hidden: Tensor, matrix: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    found: Tensor = linear_cross_entropy(
        hidden, matrix, targets, reduction="sum", softcap=softcap, impl="cce_kahan_full_c"
    )
    return found
