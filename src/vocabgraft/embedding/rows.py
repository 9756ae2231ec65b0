"""The embedding matrices of a live model as old and new rows, each with its two routes.

The model keeps its matrices; `Rows` holds float32 masters of what may train and writes them through after each
step, so evaluation, generation and saving always see the truth. What has no master has no gradient and no
optimiser state, and cannot move: not by weight decay, not by old momentum.

    route   input:  a token looks up its row          output: a row is scored against the hidden state
    rows    old:    every id the base had in use      new:    `ids`, contiguous or scattered

On a tied matrix both routes share one value. Training one route means taking its gradient and leaving out the
other's, so `input.new` and `output.new` stay different trainings of the same rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

ROUTES = ("input", "output")


class Rows:
    """Float32 masters over the live matrices of `model`.

    ids: (N,) the new rows. Matrices are (V, D). Masters of new rows always exist; those of old rows are made by
    `open_old`, one a matrix (a tied model has one).
    """

    def __init__(self, model: nn.Module, ids: Tensor) -> None:
        self.embedding: Any = model.get_input_embeddings()
        head: Any = model.get_output_embeddings()
        self.ids = ids.to(model.get_input_embeddings().weight.device)
        self.live = {"input": self.embedding.weight, "output": head.weight}
        self.tied = self.live["input"].data_ptr() == self.live["output"].data_ptr()
        device = self.live["input"].device
        self.is_new = torch.zeros(len(self.live["input"]), dtype=torch.bool, device=device)
        self.is_new[ids] = True
        self.place = torch.full((len(self.is_new),), -1, dtype=torch.long, device=device)
        self.place[ids] = torch.arange(len(ids), device=device)
        self.new = self._masters(lambda w: w[ids])
        self.old: dict[str, nn.Parameter] = {}

    def _masters(self, pick: Any) -> dict[str, nn.Parameter]:
        """One float32 parameter per matrix; a tied model has the same one under both routes."""
        made = {"input": nn.Parameter(pick(self.live["input"].detach()).float().clone())}
        made["output"] = (
            made["input"] if self.tied else nn.Parameter(pick(self.live["output"].detach()).float().clone())
        )
        return made

    @property
    def scale(self) -> float:
        """What the model multiplies looked-up rows by (Gemma: sqrt(D), rounded to the matrix's type)."""
        scale = getattr(self.embedding, "embed_scale", None)
        return 1.0 if scale is None else float(scale.to(self.live["input"].dtype))

    def open_old(self) -> None:
        """Make masters of the whole matrices, so that old rows can train."""
        if not self.old:
            self.old = self._masters(lambda w: w)

    @torch.no_grad()
    def write(self) -> None:
        """Put the masters into the live matrices."""
        for route in self.routes():
            live = self.live[route]
            if self.old:
                live.copy_(self.old[route])
            live[self.ids] = self.new[route].to(live.dtype)

    def routes(self) -> tuple[str, ...]:
        """The distinct matrices: one when tied."""
        return ("input",) if self.tied else ROUTES

    @torch.no_grad()
    def look_up(self, tokens: Tensor) -> Tensor:
        """Input vectors of tokens (B, T) -> (B, T, D), scaled as the model scales them, without a graph."""
        return self.embedding(tokens)

    @torch.no_grad()
    def add_input_gradient(self, tokens: Tensor, gradient: Tensor, groups: Collection[str]) -> None:
        """Add the input route's gradient: (B, T) tokens, (B, T, D) gradient with respect to `look_up`."""
        flat, grads = tokens.flatten(), gradient.flatten(0, 1).float() * self.scale
        new = self.is_new[flat]
        if "input.new" in groups:
            grad_of(self.new["input"]).index_add_(0, self.place[flat[new]], grads[new])
        if "input.old" in groups:
            grad_of(self.old["input"]).index_add_(0, flat[~new], grads[~new])

    def parameters(self, groups: Collection[str]) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, master) of what the groups train, each once; names are 'new', 'old' when tied."""
        seen: set[int] = set()
        for group in sorted(groups):
            route, _, block = group.partition(".")
            if block not in ("old", "new"):
                continue
            parameter = (self.old if block == "old" else self.new)[route]
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield (block if self.tied else group), parameter

    def state(self) -> dict[str, Tensor]:
        """Masters by name, for saving."""
        named = {}
        for route in self.routes():
            for block, masters in (("new", self.new), ("old", self.old)):
                if masters:
                    named[f"{route}.{block}"] = masters[route].detach()
        return named

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Take masters from `state` and write them through."""
        for name, value in state.items():
            route, _, block = name.partition(".")
            if block == "old":
                self.open_old()
            (self.old if block == "old" else self.new)[route].copy_(value)
        self.write()

    def hashes(self) -> dict[str, str]:
        """SHA-256 of old and new rows of each live matrix, as the model uses them."""
        found = {}
        for route in self.routes():
            live = self.live[route].detach()
            found[f"{route}.old"] = hash_tensor(live[~self.is_new])
            found[f"{route}.new"] = hash_tensor(live[self.is_new])
        return found


@torch.no_grad()
def grow(model: Any, rows: int | None) -> None:
    """Give the matrices of a live model `rows` rows, in place; None or fewer rows than there are change nothing.

    Added rows begin as `grown` makes them. A tied model stays tied; its configuration says the new size.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if rows is None or rows <= len(embedding.weight):
        return
    tied = embedding.weight.data_ptr() == head.weight.data_ptr()
    embedding.weight = nn.Parameter(grown(embedding.weight, rows), requires_grad=False)
    head.weight = embedding.weight if tied else nn.Parameter(grown(head.weight, rows), requires_grad=False)
    embedding.num_embeddings = head.out_features = model.config.get_text_config().vocab_size = rows


def grown(matrix: Tensor, rows: int) -> Tensor:
    """(V, D) with rows added up to `rows`, each the mean of all V: as an output it scores below the average, so what is
    there only to round the size up is never chosen (Hewitt 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html)."""
    mean = matrix.mean(0, keepdim=True, dtype=torch.float32).to(matrix.dtype)
    return torch.cat([matrix, mean.expand(rows - len(matrix), -1)])


def grad_of(parameter: nn.Parameter) -> Tensor:
    """The gradient buffer of a parameter, made of zeros on first use."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def hash_tensor(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    plain = tensor.detach().contiguous().cpu().view(torch.uint8).numpy()
    return hashlib.sha256(plain.data).hexdigest()
