"""The chunked loss is cross-entropy, and its hand-written gradients are autograd's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from vocabgraft.embedding.rows import Rows
from vocabgraft.training import objective
from vocabgraft.training.objective import backward_through_head, token_nats

V, D, M = 301, 16, 300  # chunks of 16, the last one short
IDS = torch.tensor([300, 7, 250, 251])


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, matrix = torch.randn(M, D, generator=generator), torch.randn(V, D, generator=generator)
    return hidden, torch.randint(0, V, (M,), generator=generator), matrix


def rows_over(matrix: torch.Tensor) -> Rows:
    embedding = torch.nn.Embedding.from_pretrained(torch.zeros(V, D))
    head = SimpleNamespace(weight=torch.nn.Parameter(matrix.clone(), requires_grad=False))
    rows = Rows(SimpleNamespace(get_input_embeddings=lambda: embedding, get_output_embeddings=lambda: head), IDS)
    rows.open_old()
    return rows


def capped(logits: torch.Tensor, softcap: float | None) -> torch.Tensor:
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_nats_of_each_token_are_those_of_torch(softcap: float | None) -> None:
    hidden, targets, matrix = problem()
    expected = cross_entropy(capped(hidden @ matrix.T, softcap), targets, reduction="none")
    torch.testing.assert_close(token_nats(hidden, targets, matrix, softcap), expected)


def test_no_token_costs_nothing() -> None:
    hidden, targets, matrix = problem()
    assert token_nats(hidden[:0], targets[:0], matrix).tolist() == []
    loss, gradient = backward_through_head(
        hidden[:0], targets[:0], rows_over(matrix), ("output.new",), weight=1.0, want_hidden=True
    )
    assert (loss, gradient.shape) == (0.0, (0, D))


@pytest.mark.parametrize("chunk", [1, 128, 1000])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_gradients_are_autograds_whatever_the_chunk(
    softcap: float | None, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "CHUNK", chunk)
    hidden, targets, matrix = problem()
    rows = rows_over(matrix)
    loss, d_hidden = backward_through_head(
        hidden, targets, rows, ("output.new", "output.old"), weight=1 / M, want_hidden=True, softcap=softcap
    )
    h, w = hidden.double().requires_grad_(), matrix.double().requires_grad_()
    expected = cross_entropy(capped(h @ w.T, softcap), targets)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-6)
    found = rows.old["output"].grad.clone()
    found[IDS] = rows.new["output"].grad  # their places among the old rows are the loop's to clear
    for mine, exact in ((found, w.grad), (d_hidden, h.grad)):
        assert float((mine.double() - exact).abs().max()) <= 1e-6 * float(exact.abs().max())


def test_bfloat16_rows_get_the_float32_gradient_to_a_percent() -> None:
    hidden, targets, matrix = problem()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        rows = rows_over(matrix.to(torch.bfloat16).to(dtype))
        h = hidden.to(torch.bfloat16).to(dtype)
        groups = ("output.new", "output.old")
        loss, d_hidden = backward_through_head(h, targets, rows, groups, weight=1 / M, want_hidden=True)
        found.append((torch.tensor(loss), d_hidden.float(), rows.new["output"].grad, rows.old["output"].grad))
        assert rows.new["output"].grad.dtype == rows.old["output"].grad.dtype == torch.float32
    for exact, rounded in zip(*found, strict=True):
        assert float((rounded - exact).norm() / exact.norm()) < 0.01


def test_gradients_of_micro_batches_add_up() -> None:
    hidden, targets, matrix = problem()
    whole, parts = rows_over(matrix), rows_over(matrix)
    backward_through_head(hidden, targets, whole, ("output.new",), weight=1 / M, want_hidden=False)
    for half in (slice(0, 100), slice(100, M)):
        backward_through_head(hidden[half], targets[half], parts, ("output.new",), weight=1 / M, want_hidden=False)
    torch.testing.assert_close(parts.new["output"].grad, whole.new["output"].grad)


def test_only_what_is_asked_for_is_formed() -> None:
    hidden, targets, matrix = problem()
    rows = rows_over(matrix)
    _, gradient = backward_through_head(hidden, targets, rows, ("output.new",), weight=1.0, want_hidden=False)
    assert gradient is None
    assert rows.old["output"].grad is None
    _, gradient = backward_through_head(hidden, targets, rows, ("lora",), weight=1.0, want_hidden=True)
    assert gradient is not None
