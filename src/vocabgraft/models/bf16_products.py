"""Products of bfloat16 matrices on a CPU that has no instructions for them.

torch gives those to a kernel of 0.5 to 8 GFLOP/s a core where the same core does 50 in float32 (docs/log.md): most
laptops, and servers without AVX-512. Here the factors are made float32 a tile at a time and multiplied as such. Sums
are float32 either way and the result is rounded once, so it is the same product; only the order of sums differs.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_TILE = 1 << 21  # numbers made float32 at a time: 8 MB, what stays in a core's cache


@functools.cache
def speed_up() -> bool:
    """Replace torch's kernels where oneDNN says that they are slow, once a process; whether that was so.

    A build of torch without oneDNN, such as Apple's, has kernels of its own, which are left alone.
    """
    fast = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    if fast is None or fast() or not hasattr(torch.library, "get_kernel"):
        return False
    replace_kernels()
    return True


@functools.cache
def replace_kernels() -> torch.library.Library:
    """Replace them whatever the CPU has; they stand as long as the library that is returned."""
    library = torch.library.Library("aten", "IMPL")
    kernel = {name: torch.library.get_kernel(f"aten::{name}", "CPU") for name in ("mm", "mm.out", "addmm", "bmm")}

    def mm(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        if _fast(a):
            return kernel["mm"].call_boxed(keys, a, b)
        return _product(a, b, a.new_empty(a.shape[0], b.shape[1]))

    def mm_out(keys: Any, a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
        if _fast(a):
            return kernel["mm.out"].call_boxed(keys, a, b, out=out)
        return _product(a, b, out)

    def addmm(keys: Any, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        if _fast(a):
            return kernel["addmm"].call_boxed(keys, bias, a, b, beta=beta, alpha=alpha)
        return torch.addmm(bias.float(), a.float(), b.float(), beta=beta, alpha=alpha).to(a.dtype)

    def bmm(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        return kernel["bmm"].call_boxed(keys, a, b) if _fast(a) else torch.bmm(a.float(), b.float()).to(a.dtype)

    replaced: dict[str, Callable[..., Tensor]] = {"mm": mm, "mm.out": mm_out, "addmm": addmm, "bmm": bmm}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning only once for all operators", category=UserWarning)
        for name, function in replaced.items():
            library.impl(name, function, "CPU", with_keyset=True)
    return library


def _fast(a: Tensor) -> bool:
    return a.dtype is not torch.bfloat16


def _product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """out (M, N) = a (M, K) @ b (K, N), in tiles of the longest side."""
    (m, k), n = a.shape, b.shape[1]
    if a.numel() + b.numel() <= _TILE:
        large = (_float32(a), b.float()) if m > n else (a.float(), _float32(b))
        return out.copy_(torch.mm(*large))
    if k >= max(m, n):
        return out.copy_(_summed(a, b))
    size = max(64, _TILE // k)
    if n >= m:
        whole = a.float()
        for start in range(0, n, size):
            out[:, start : start + size] = torch.mm(whole, _float32(b[:, start : start + size]))
    else:
        whole = b.float()
        for start in range(0, m, size):
            out[start : start + size] = torch.mm(_float32(a[start : start + size]), whole)
    return out


def _summed(a: Tensor, b: Tensor) -> Tensor:
    """The product in float32 where the summed side is the long one."""
    total = torch.zeros(a.shape[0], b.shape[1])
    size = max(64, _TILE // max(a.shape[0], b.shape[1]))
    for start in range(0, a.shape[1], size):
        one, other = a[:, start : start + size], b[start : start + size]
        total.addmm_(*((_float32(one), other.float()) if len(a) > b.shape[1] else (one.float(), _float32(other))))
    return total


_place = threading.local()


def _float32(part: Tensor) -> Tensor:
    """The part in float32, laid out as it is, in the thread's one place for that: it holds until the next call.

    A new one each time would lie between what a graph keeps, and the holes it leaves are not used again: a fifth of the
    270M's matrix in steps of 32 tokens (docs/log.md).
    """
    if part.numel() > _TILE:
        return part.float()
    if not hasattr(_place, "tile"):
        _place.tile = torch.empty(_TILE)
    tile: Tensor = _place.tile[: part.numel()]
    if part.T.is_contiguous():
        return tile.view(part.T.shape).T.copy_(part)
    return tile.view(part.shape).copy_(part)
