"""Every loss backend gives the same loss and the same gradients, also where hidden states stand still."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest
import torch

from vocabgraft.embedding.rows import Rows
from vocabgraft.errors import MachineError, ModelError
from vocabgraft.training.backends import BACKENDS, head_of

V, D, M = 301, 16, 40
IDS = torch.tensor([300, 7, 250, 251])
HERE = ("ours", "torch", *(b for b in ("liger", "cce") if torch.cuda.is_available()))
GROUPS = [("output.new",), ("output.old", "output.new"), ("input.new",), ("input.new", "output.new")]


def rows_over(matrix: torch.Tensor) -> Rows:
    embedding = torch.nn.Embedding.from_pretrained(torch.zeros(V, D))
    head = SimpleNamespace(weight=torch.nn.Parameter(matrix.clone(), requires_grad=False))
    rows = Rows(SimpleNamespace(get_input_embeddings=lambda: embedding, get_output_embeddings=lambda: head), IDS)
    rows.open_old()
    return rows


@pytest.mark.parametrize("want_hidden", [True, False])
@pytest.mark.parametrize("groups", GROUPS, ids="+".join)
@pytest.mark.parametrize("backend", HERE)
def test_a_backend_gives_autograds_loss_and_gradients(backend: str, groups: tuple[str, ...], want_hidden: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, matrix = torch.randn(M, D, generator=generator), torch.randn(V, D, generator=generator)
    targets = torch.randint(0, V, (M,), generator=generator)
    h, w = hidden.clone().double().requires_grad_(), matrix.clone().double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(h @ w.T, targets)
    expected.backward()

    rows = rows_over(matrix)
    loss, gradient = head_of(backend)(hidden, targets, rows, groups, weight=1 / M, want_hidden=want_hidden)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-6)
    if want_hidden:
        torch.testing.assert_close(gradient.double(), h.grad, rtol=1e-4, atol=1e-7)
    else:
        assert gradient is None
    for master, at, group in ((rows.new, IDS, "output.new"), (rows.old, slice(None), "output.old")):
        if group in groups:
            torch.testing.assert_close(master["output"].grad.double(), w.grad[at], rtol=1e-4, atol=1e-7)
        else:
            assert master["output"].grad is None


@pytest.mark.parametrize("backend", HERE)
def test_no_token_costs_nothing(backend: str) -> None:
    rows = rows_over(torch.randn(V, D))
    empty = torch.zeros(0, D), torch.zeros(0, dtype=torch.long)
    loss, gradient = head_of(backend)(*empty, rows, ("output.new",), weight=1.0, want_hidden=True)
    assert (loss, gradient.shape) == (0.0, (0, D))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ModelError, match="has no soft cap"):
        head_of("torch", softcap=30.0)
    for backend, package in (("liger", "liger-kernel"), ("cce", "cut-cross-entropy")):
        there = importlib.util.find_spec(package.replace("-", "_")) is not None
        with pytest.raises(MachineError, match="GPU kernels alone" if there else f"pip install {package}"):
            head_of(backend, device="cpu")
    assert set(HERE) <= set(BACKENDS)


def test_a_kernel_without_a_gradient_for_the_matrix_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As liger-kernel 0.8.5 where hidden states have none."""
    from vocabgraft.training import backends

    monkeypatch.setattr(backends, "_torch", lambda h, w, t, s: (h @ w.detach().T).logsumexp(1).sum())
    rows = rows_over(torch.randn(V, D))
    hidden, targets = torch.randn(M, D), torch.zeros(M, dtype=torch.long)
    with pytest.raises(ModelError, match="nothing would train"):
        head_of("torch")(hidden, targets, rows, ("output.new",), weight=1.0, want_hidden=False)


def test_a_teacher_needs_ours() -> None:
    rows = rows_over(torch.randn(V, D))
    hidden, targets = torch.randn(M, D), torch.zeros(M, dtype=torch.long)
    with pytest.raises(ModelError, match="backend 'ours'"):
        head_of("torch")(hidden, targets, rows, ("output.new",), weight=1.0, want_hidden=True, goals=torch.zeros(M))
