"""Log-likelihood of continuations: how probable each of several endings of one text is to a model.

The text is read once for all its endings. Endings of one token, such as letters, need no more than that; of longer
ones only their own tokens are read, behind the text's kept keys and values. Logits are formed where endings are scored
and nowhere else: with 262,144 entries they would cost as much as the body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from vocabgraft.models.load import decoder_of, softcap_of
from vocabgraft.training.objective import Workspace, token_nats

BATCH = 1024  # tokens of one forward pass, padding included


@dataclass(frozen=True)
class Endings:
    """Token ids of a text, its begin token first, and of each way it may go on; none is empty."""

    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]

    @cached_property
    def shared(self) -> tuple[int, ...]:
        """What stands before the last token of every ending: read once."""
        columns = zip(*(c[:-1] for c in self.continuations), strict=False)
        return (*self.context, *(column[0] for column in takewhile(lambda c: len(set(c)) == 1, columns)))

    @cached_property
    def tails(self) -> list[tuple[int, ...]]:
        """What is left of each ending to be read, its last token aside; empty where that is nothing for any."""
        known = len(self.shared) - len(self.context)
        found = [c[known:-1] for c in self.continuations]
        return found if any(found) else []


def encode_endings(tokenizer: Tokenizer, context: str, continuations: Sequence[str], *, bos: int | None) -> Endings:
    """Encode a text with each of its continuations as one, and split where the text alone ends.

    As lm-evaluation-harness does it: spaces at the end of the text belong to the continuation.
    """
    first = tuple(tokenizer.encode(context.rstrip(), add_special_tokens=False).ids)
    ends = (tokenizer.encode(context + c, add_special_tokens=False).ids[len(first) :] for c in continuations)
    return Endings(first if bos is None else (bos, *first), tuple(map(tuple, ends)))


@torch.no_grad()
def log_likelihoods(
    model: Any, texts: Sequence[Endings], *, on_text: Callable[[int], None] = lambda n: None
) -> list[list[float]]:
    """Summed log-probability in nats of each continuation of each text.

    What is computed together depends on the texts alone, so results do not change with the machine's memory. Among
    other texts a text gets the same up to the order of sums: 1e-5 nats in float32, 1e-2 in bf16.
    """
    found: list[list[float]] = [[] for _ in texts]
    work = Workspace()
    for chosen in _batches({i: len(t.shared) for i, t in enumerate(texts) if not t.tails}):
        hidden, _ = _read(model, [texts[i].shared for i in chosen])
        for row, i in enumerate(chosen):
            found[i] = _scores(model, texts[i], hidden[row], None, work)
        on_text(len(chosen))
    for i, text in enumerate(texts):
        if text.tails:
            hidden, cache = _read(model, [text.shared], keep=True)
            cache.batch_repeat_interleave(len(text.tails))
            behind, _ = _read(model, text.tails, after=cache)
            found[i] = _scores(model, text, hidden[0], behind, work)
            on_text(1)
    return found


def _batches(lengths: dict[int, int]) -> Iterator[list[int]]:
    """Texts of like length together, the longest first: one that is too long for the memory fails at once."""
    chosen: list[int] = []
    for i in sorted(lengths, key=lambda i: -lengths[i]):
        if chosen and (len(chosen) + 1) * lengths[chosen[0]] > BATCH:
            yield chosen
            chosen = []
        chosen.append(i)
    if chosen:
        yield chosen


def _read(model: Any, texts: Sequence[Sequence[int]], *, keep: bool = False, after: Any = None) -> tuple[Tensor, Any]:
    """Hidden states (B, T, D) of texts, padded at the right, and keys and values where they are kept.

    Attention is causal, so what pads needs no mask: nothing that is scored sees it.
    """
    embed = model.get_input_embeddings()
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text, dtype=torch.long)
    embedded = embed(ids.to(embed.weight.device))
    read = decoder_of(model)(inputs_embeds=embedded, past_key_values=after, use_cache=keep or after is not None)
    return read.last_hidden_state, read.past_key_values


def _scores(model: Any, text: Endings, shared: Tensor, behind: Tensor | None, work: Workspace) -> list[float]:
    """Each ending's sum, from hidden states of what is shared (T, D) and of the tails (K, T', D)."""
    known = len(text.shared) - len(text.context)
    states: list[Tensor] = []
    targets: list[int] = []
    for k, ending in enumerate(text.continuations):
        states.append(shared[len(text.context) - 1 : len(text.shared)][: len(ending)])
        if behind is not None:
            states.append(behind[k, : max(0, len(ending) - known - 1)])
        targets += ending
    matrix = model.get_output_embeddings().weight
    nats = token_nats(torch.cat(states), torch.tensor(targets, device=matrix.device), matrix, softcap_of(model), work)
    return [-float(part.double().sum()) for part in nats.split([len(e) for e in text.continuations])]
