"""A second device for a machine that has none: tensors that say they are on 'cuda', and will not meet others.

Arithmetic is the CPU's, inside a wrapper. The rules are a GPU's: a tensor there meets one of the host in no operation
but a copy and as an index, has no numpy(), and what is made of it stays there. So code that forgets to move something
fails here as it would there. What this does not show: kernels, memory, speed, 4-bit weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

HERE, THERE = torch.device("cpu"), torch.device("cuda", 0)
_INDEXING = ("aten::index.", "aten::index_put", "aten::_index_put", "aten::_unsafe_index")  # an index may be here


class Away(Tensor):
    """A tensor there."""

    inner: Tensor
    device = property(lambda self: THERE)
    is_cuda = property(lambda self: True)

    @staticmethod
    def __new__(cls, inner: Tensor) -> Away:
        return Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        special = _SPECIAL.get(getattr(func, "__name__", ""))
        with torch._C.DisableTorchFunctionSubclass():
            return special(*args, **(kwargs or {})) if special else func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _meet(func, args, kwargs or {})


def _to(tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    if args and isinstance(args[0], Tensor):  # as another tensor is
        args, kwargs = (args[0].device, args[0].dtype), {}
    device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
    dtype = dtype or tensor.dtype
    if device is None or device == tensor.device or (device.type == "cuda" and isinstance(tensor, Away)):
        return Tensor.to(tensor, dtype, copy=copy)
    return Tensor.to(tensor, device, dtype) if device.type == "cuda" else _inner(tensor.detach()).to(dtype, copy=True)


def _no_numpy(*_: Any, **__: Any) -> Any:
    raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first")


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Away) else value


_SPECIAL: dict[str, Callable[..., Any]] = {
    "to": _to,
    "cpu": lambda tensor: tensor.detach().inner.clone(),
    "tolist": lambda tensor: tensor.inner.tolist(),
    "data_ptr": lambda tensor: tensor.inner.data_ptr(),
    "numpy": _no_numpy,
    "__array__": _no_numpy,
}


def _meet(func: Any, args: Any, kwargs: Any) -> Any:
    """One operation by the rules."""
    name, goal = func.name(), torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    if name == "aten::copy_":
        _inner(args[0]).copy_(_inner(args[1]))
        return args[0]
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    away = [x for x in tensors if isinstance(x, Away)]
    if away and name != "aten::_to_copy" and not name.startswith(_INDEXING):
        for x in tensors:
            if not isinstance(x, Away) and x.dim() > 0:
                raise RuntimeError(f"{name}: found tensors on cuda:0 and on cpu, the latter {tuple(x.shape)}")
    if goal is not None and goal.type == "cuda":
        kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"} | {"device": HERE}
    known = {id(x.inner): x for x in away}
    found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if not (away if goal is None else goal.type == "cuda" or (away and goal.type == "cpu")):
        return found
    return tree_map(lambda x: known.get(id(x), Away(x)) if type(x) is Tensor else x, found)


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _meet(func, args, kwargs or {})


class _Constructors(TorchFunctionMode):
    """torch.tensor and its like reach for the device below where dispatch could stop them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or HERE).type == "cuda":
            return func(*args, **kwargs | {"device": HERE}).to(THERE)
        return func(*args, **kwargs)


def _move(module: nn.Module) -> nn.Module:
    """Parameters and buffers there; what was shared still is."""
    done: dict[int, Any] = {}
    for each in module.modules():
        for table in (each._parameters, each._buffers):
            for name, value in table.items():
                if value is None or isinstance(value, Away):
                    continue
                if id(value) not in done:
                    moved = Away(value.detach().clone())
                    is_parameter = isinstance(value, nn.Parameter)
                    done[id(value)] = nn.Parameter(moved, value.requires_grad) if is_parameter else moved
                table[name] = done[id(value)]
    return module


@contextmanager
def second_device() -> Iterator[None]:
    """While inside, 'cuda' is such a device."""
    module_to, initialise = nn.Module.to, torch.cuda._lazy_init

    def to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        return _move(self) if str(args[:1]).find("cuda") >= 0 else module_to(self, *args, **kwargs)

    nn.Module.to, torch.cuda._lazy_init = to, lambda: None
    try:
        with _Constructors(), _Dispatch():
            yield
    finally:
        nn.Module.to, torch.cuda._lazy_init = module_to, initialise
