"""The embedding matrices of a live model as old and new rows, each with its two routes.

The model keeps its matrices; `Rows` holds float32 masters of what may train and writes them through after each
step, so evaluation, generation and saving always see the truth. What has no master has no gradient and no
optimiser state, and cannot move: not by weight decay, not by old momentum.

    route   input:  a token looks up its row          output: a row is scored against the hidden state
    rows    old:    every id the base had in use      new:    `ids`, contiguous or scattered

On a tied matrix both routes share one value. Training one route means taking its gradient and leaving out the
other's, so `input.new` and `output.new` stay different trainings of the same rows. Row-untied, the old rows stay
shared and each new row has two values: the matrix holds those of the output route, and a hook on the embedding
looks new tokens up in a small (N, D) tensor of their own. No copy of the matrix is made before export.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vocabgraft.embedding.low import LowRank, grad_of

ROUTES = ("input", "output")
_PART = 8192  # rows of a matrix that are copied at once


class Rows:
    """Float32 masters over the live matrices of `model`.

    ids: (N,) the new rows. Matrices are (V, D). Masters of new rows always exist; those of old rows are made by
    `open_old`, one a matrix (a tied model has one). untie: a tied model's new rows get a value for each route.
    """

    def __init__(self, model: nn.Module, ids: Tensor, *, untie: bool = False) -> None:
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
        self.shared = {"old": self.tied, "new": self.tied and not untie}
        self.new = self._masters("new", lambda w: w[ids])
        self.old: dict[str, nn.Parameter] = {}
        self.low: dict[str, LowRank] = {}
        self._own: Tensor | None = None
        if self.row_untied:
            self._own = self.live["input"].detach()[self.ids].clone()
            self.embedding.register_forward_hook(self._look_up_in(self._own))

    def _masters(self, block: str, pick: Any) -> dict[str, nn.Parameter]:
        """One float32 parameter per route; where the block is shared, the same one under both."""
        made: dict[str, nn.Parameter] = {}
        for route in ROUTES:
            shared = self.shared[block] and "input" in made
            own = None if shared else pick(self.live[route].detach()).to(torch.float32, copy=True)
            made[route] = made["input"] if own is None else nn.Parameter(own)
        return made

    def _look_up_in(self, own: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        """A forward hook that puts rows of `own` (N, D) where the embedding looked up new tokens."""

        @torch.no_grad()
        def hook(embedding: nn.Module, tokens: tuple[Tensor, ...], found: Tensor) -> Tensor:
            place = self.place[tokens[0]]
            new = place >= 0
            found[new] = own[place[new]] * self.scale
            return found

        return hook

    @property
    def row_untied(self) -> bool:
        """Whether new rows have two values over one matrix."""
        return self.tied and not self.shared["new"]

    @property
    def scale(self) -> float:
        """What the model multiplies looked-up rows by (Gemma: sqrt(D), rounded to the matrix's type)."""
        scale = getattr(self.embedding, "embed_scale", None)
        return 1.0 if scale is None else float(scale.to(self.live["input"].dtype))

    def open_old(self) -> None:
        """Make masters of the whole matrices, so that old rows can train."""
        if not self.old:
            self.old = self._masters("old", lambda w: w)

    def open_low(self, groups: Collection[str], rank: int, scale: float) -> None:
        """Begin a change of old rows by few numbers, on the routes that the groups name ('input.low', 'output.low')."""
        for route in ROUTES if self.shared["old"] else [r for r in ROUTES if f"{r}.low" in groups]:
            shared = self.shared["old"] and self.low
            self.low[route] = (
                self.low["input"] if shared else LowRank(self.live[route].detach(), self.is_new, rank, scale)
            )

    def close_low(self) -> None:
        """Add the change to the old rows' masters, and so to the model; nothing is left of it."""
        if self.low:
            self.open_old()
            for route in {"input"} if self.shared["old"] else self.low:
                self.low[route].add_to(self.old[route].detach())
            self.low = {}
            self.write()

    @contextmanager
    def merged(self) -> Iterator[None]:
        """While inside, the live matrices hold a change that is still training, so that the model can be measured."""
        before = {r: self.live[r].detach().clone() for r in self.low}
        for route in {"input"} & set(self.low) if self.shared["old"] else self.low:
            self.low[route].add_to(self.live[route].detach())
        try:
            yield
        finally:
            for route, matrix in before.items():
                self.live[route].detach().copy_(matrix)

    @torch.no_grad()
    def write(self) -> None:
        """Put the masters into the live matrices."""
        for low in self.low.values():
            low.write()
        if self.old:
            for route in self.routes("old"):
                self.live[route].copy_(self.old[route])
        for route in self.routes("new"):
            live = self.live[route]
            if self._own is not None and route == "input":
                self._own.copy_(self.new[route])
            else:
                live[self.ids] = self.new[route].to(live.dtype)

    def routes(self, block: str = "new") -> tuple[str, ...]:
        """The routes by which a block has values of its own: one where both share them."""
        return ("input",) if self.shared[block] else ROUTES

    def size_of_values(self) -> float:
        """Root mean square of the numbers in the old row of median norm; untied: in the matrix of smaller ones."""
        width = self.live["input"].shape[1]
        return min(float(row_norms(w.detach())[~self.is_new].median()) for w in self.live.values()) / width**0.5

    def values_of(self, groups: Collection[str]) -> set[str]:
        """What moves when the groups train, as `hashes` names it: shared values stand under 'input'."""
        blocks = {g: g.partition(".")[2] for g in (g.replace(".low", ".old") for g in groups)}
        return {f"input.{b}" if b and self.shared[b] else g for g, b in blocks.items()}

    @torch.no_grad()
    def look_up(self, tokens: Tensor) -> Tensor:
        """Input vectors of tokens (B, T) -> (B, T, D), scaled as the model scales them, without a graph."""
        found = self.embedding(tokens)
        return found + self.low["input"].look_up(tokens) * self.scale if "input" in self.low else found

    @torch.no_grad()
    def add_input_gradient(self, tokens: Tensor, gradient: Tensor, groups: Collection[str]) -> None:
        """Add the input route's gradient: (B, T) tokens, (B, T, D) gradient with respect to `look_up`."""
        flat, grads = tokens.flatten(), gradient.flatten(0, 1).float() * self.scale
        new = self.is_new[flat]
        if "input.new" in groups:
            grad_of(self.new["input"]).index_add_(0, self.place[flat[new]], grads[new])
        if "input.old" in groups:
            grad_of(self.old["input"]).index_add_(0, flat[~new], grads[~new])
        if "input.low" in groups:
            self.low["input"].add_input_gradient(flat[~new], grads[~new])

    def parameters(self, groups: Collection[str]) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, master) of what the groups train, each once; names are 'new', 'old', 'low_a', 'low_b' when tied."""
        seen: set[int] = set()
        for group in sorted(groups):
            route, _, block = group.partition(".")
            shared = self.shared.get("old" if block == "low" else block, False)
            if block == "low":
                found = {"_a": self.low[route].a, "_b": self.low[route].b}
            else:
                found = {"": (self.old if block == "old" else self.new)[route]} if block in ("old", "new") else {}
            for ending, parameter in found.items():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield (block if shared else group) + ending, parameter

    def state(self) -> dict[str, Tensor]:
        """Masters by name, for saving."""
        named = {}
        for block, masters in (("new", self.new), ("old", self.old)):
            for route in self.routes(block) if masters else ():
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
        """SHA-256 of old and new rows by route, as the model uses them."""
        found = {f"{r}.old": _hash_rows(self.live[r], ~self.is_new) for r in self.routes("old")}
        for route in self.routes("new"):
            found[f"{route}.new"] = _hash_rows(self.live[route], self.is_new)
        if self._own is not None:
            found["input.new"] = hash_tensor(self._own)
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


@torch.no_grad()
def row_norms(matrix: Tensor) -> Tensor:
    """(V,) lengths of a matrix's rows in float32, on its device; a float32 copy of it is never held."""
    norms = torch.empty(len(matrix), device=matrix.device)
    for into, part in zip(norms.split(_PART), matrix.split(_PART), strict=True):
        into.copy_(part.float().norm(dim=1))
    return norms


def _hash_rows(matrix: Tensor, chosen: Tensor) -> str:
    """SHA-256 of the chosen rows' bytes, taken in parts: all at once are another embedding matrix."""
    whole = hashlib.sha256()
    for part, which in zip(matrix.detach().split(_PART), chosen.split(_PART), strict=True):
        whole.update(part[which].contiguous().cpu().view(torch.uint8).numpy().data)
    return whole.hexdigest()


def hash_tensor(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    plain = tensor.detach().contiguous().cpu().view(torch.uint8).numpy()
    return hashlib.sha256(plain.data).hexdigest()
