"""Documents packed into one row: their hidden states, and the proof that they do not see each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vocabgraft.errors import ModelError
from vocabgraft.models.load import decoder_of

_DOCUMENT = 16  # tokens of each document in the proof
_APART = 0.05  # share of a hidden state's size: rounding of bf16 is a tenth of it, another document far more


def hidden_states(model: Any, x: Tensor, positions: Tensor) -> Tensor:
    """Last hidden states (B, T, D) of packed rows.

    Documents in a row stay apart only with restarting positions, no mask and no cache (transformers,
    masking_utils.find_packed_sequence_indices); anything else contaminates silently.
    """
    out = decoder_of(model)(inputs_embeds=x, position_ids=positions, attention_mask=None, use_cache=False)
    return out.last_hidden_state


@torch.no_grad()
def prove_isolated(model: Any) -> None:
    """ModelError when documents packed into one row see each other: the second of two must not care about the first.

    Asked of the live model, because whether restarting positions are heeded depends on its architecture, its attention
    kernel, and the transformers that runs it.
    """
    embedding = model.get_input_embeddings()
    rows, device = embedding.weight.shape[0], embedding.weight.device
    first = torch.arange(2 * _DOCUMENT, device=device).reshape(2, -1) * 7 % rows
    second = (torch.arange(_DOCUMENT, device=device) * 5 + 3) % rows
    tokens = torch.cat([first, second.expand(2, -1)], 1)
    positions = torch.arange(_DOCUMENT, device=device).repeat(2).expand(2, -1)
    found = hidden_states(model, embedding(tokens), positions)[:, _DOCUMENT:].float()
    apart = float((found[0] - found[1]).norm() / found[0].norm())
    if not apart < _APART:
        raise ModelError(
            f"{type(model).__name__}: documents packed into one row see each other (hidden states differ by "
            f"{apart:.0%}), so training would mix them; try a newer transformers"
        )
