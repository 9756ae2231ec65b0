"""Bits per byte: the one loss that may be compared across tokenizers.

Summed nats of a text, divided by ln 2 and by its UTF-8 bytes. Token-level loss or perplexity changes its unit
with the vocabulary. The text is scored in windows fixed in bytes (see `corpus.mix.windows`), each after BOS, and
after as many bytes of what stands before it as every tokenizer gets: neither reads farther for having longer tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer

from vocabgraft.models.load import decoder_of, softcap_of
from vocabgraft.tokenizer.measure import encode
from vocabgraft.training.objective import Workspace, token_nats


@dataclass(frozen=True)
class Bits:
    """Bits and bytes of each window, in order: windows pair up across models."""

    bits: tuple[float, ...]
    bytes: tuple[int, ...]
    tokens: int

    @property
    def per_byte(self) -> float:
        """Bits per byte over all windows."""
        return sum(self.bits) / sum(self.bytes)


@torch.no_grad()
def bits_per_byte(
    model: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    bos: int,
    before: Sequence[str] = (),
    batch: int = 8,
    on_window: Callable[[int], None] = lambda n: None,
) -> Bits:
    """Score windows of text. Cost: one forward pass of their tokens.

    before: what the model reads in front of each window and is not scored on; none when empty.
    """
    device = model.get_input_embeddings().weight.device
    matrix = model.get_output_embeddings().weight
    softcap = softcap_of(model)
    scored = encode(tokenizer, texts)
    known = [[bos, *x] for x in encode(tokenizer, before)] if before else [[bos]] * len(texts)
    ids = [[*a, *b] for a, b in zip(known, scored, strict=True)]
    nats = [0.0] * len(ids)
    workspace = Workspace()
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        longest = max(len(ids[i]) for i in chosen)
        # Right padding needs no mask: attention is causal, and padded positions are not scored.
        tokens = torch.zeros(len(chosen), longest, dtype=torch.long)
        for r, i in enumerate(chosen):
            tokens[r, : len(ids[i])] = torch.tensor(ids[i])
        x = model.get_input_embeddings()(tokens.to(device))
        hidden = decoder_of(model)(inputs_embeds=x, attention_mask=None, use_cache=False).last_hidden_state
        for r, i in enumerate(chosen):
            first, n = len(known[i]), len(ids[i])
            losses = token_nats(hidden[r, first - 1 : n - 1], tokens[r, first:n].to(device), matrix, softcap, workspace)
            nats[i] = float(losses.double().sum())
        on_window(len(chosen))
    sizes = tuple(len(t.encode()) for t in texts)
    return Bits(tuple(x / math.log(2) for x in nats), sizes, sum(map(len, scored)))
