"""Products of bf16 matrices by float32 tiles: the same products, whatever the shape."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, torch
from vocabgraft.models import bf16_products

whole = torch.mm(torch.ones(3, 2), torch.ones(2, 3))
library = bf16_products.replace_kernels()
torch.manual_seed(0)

def close(found, right):
    assert found.dtype is torch.bfloat16, found.dtype
    assert (found.double() - right).abs().max() <= 2**-7 * right.abs().max()

for m, k, n in ((1, 1, 1), (7, 640, 9), (3, 64, 70_001), (70_001, 64, 3), (5, 300_007, 11), (0, 4, 4), (1, 640, 9999)):
    a, b = torch.randn(m, k).bfloat16(), torch.randn(n, k).bfloat16().T
    right = a.double() @ b.double()
    if m == 0:
        assert (a @ b).shape == right.shape
        continue
    close(a @ b, right)
    close(a @ b.contiguous(), right)
    close(torch.mm(a, b, out=torch.empty(m, n, dtype=torch.bfloat16)), right)
    close(torch.addmm(torch.ones(n).bfloat16(), a, b, beta=2.0, alpha=0.5), 2 + 0.5 * right)
a, b = torch.randn(2, 5, 8).bfloat16(), torch.randn(2, 8, 3).bfloat16()
close(torch.bmm(a, b), a.double() @ b.double())

layer = torch.nn.Linear(16, 32).bfloat16()
x = torch.randn(2, 4, 16).bfloat16().requires_grad_()
layer(x).float().square().sum().backward()
twin = torch.nn.Linear(16, 32).double()
twin.load_state_dict({k: v.double() for k, v in layer.state_dict().items()})
y = x.detach().double().requires_grad_()
twin(y).square().sum().backward()
for ours, theirs in ((x.grad, y.grad), (layer.weight.grad, twin.weight.grad), (layer.bias.grad, twin.bias.grad)):
    assert (ours.double() - theirs).abs().max() <= 0.02 * theirs.abs().max()

assert torch.equal(torch.mm(torch.ones(3, 2), torch.ones(2, 3)), whole)
assert (torch.mm(torch.ones(3, 2).double(), torch.ones(2, 3).double()) == 2).all()
print("all right")
"""


def test_products_by_tiles_are_those_of_float64_rounded() -> None:
    # A process of its own: the kernels are replaced for the whole process.
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "all right", done.stderr


def test_a_torch_without_onednn_is_left_alone() -> None:
    program = """
import torch
torch.ops.mkldnn = object()
from vocabgraft.models.bf16_products import replace_kernels, speed_up
assert speed_up() is False
assert replace_kernels.cache_info().currsize == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("native", [True, False])
def test_kernels_are_replaced_only_where_the_cpu_has_none(native: bool) -> None:
    program = f"""
import torch
torch.ops.mkldnn._is_mkldnn_bf16_supported = lambda: {native}
from vocabgraft.models.bf16_products import replace_kernels, speed_up
assert speed_up() is {not native}
assert speed_up() is {not native}
assert replace_kernels.cache_info().currsize == {int(not native)}
"""
    subprocess.run([sys.executable, "-c", program], check=True)
