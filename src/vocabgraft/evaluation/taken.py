"""How much probability new rows take from the old ones on text that holds no new piece: the KL from the base.

Where a text keeps its ids and the body stands still, hidden states and old logits are those of the base; only the sum
that logits are divided by grows. So KL(base || grown) at a token is log(Z_old + Z_new) - log(Z_old), in nats, and one
forward pass of the text serves any number of starts. k rows that are all the mean of n old rows give at most
log(1 + k / n) (Hewitt 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from vocabgraft.models.load import decoder_of, softcap_of
from vocabgraft.training.objective import CHUNK, Workspace, capped, chunks_of_logits


class OldText:
    """Text in old ids as the base sees it: hidden states (M, D) and log of what the old rows sum to (M,)."""

    @torch.no_grad()
    def __init__(self, model: Any, tokenizer: Tokenizer, texts: Sequence[str], new: Tensor, *, bos: int) -> None:
        """new: (N,) ids that are not counted as old, whatever stands in their rows."""
        matrix = model.get_output_embeddings().weight
        self.softcap = softcap_of(model)
        hidden, sums = [], []
        for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
            ids = torch.tensor([[bos, *encoding.ids]], device=matrix.device)
            embedded = model.get_input_embeddings()(ids)
            found = decoder_of(model)(inputs_embeds=embedded, attention_mask=None, use_cache=False).last_hidden_state
            hidden.append(found[0].to(matrix.dtype))
        self.hidden = torch.cat(hidden)
        for some in chunks_of_logits(self.hidden, matrix, Workspace()):
            logits = capped(some.float(), self.softcap)
            logits[:, new] = -torch.inf
            sums.append(logits.logsumexp(1))
        self.log_sum = torch.cat(sums)

    @torch.no_grad()
    def taken_by(self, rows: Tensor) -> float:
        """Mean KL in nats a token when the new rows are `rows` (N, D)."""
        total = 0.0
        chunks = chunks_of_logits(self.hidden, rows.to(self.hidden), Workspace())
        for logits, old in zip(chunks, self.log_sum.split(CHUNK), strict=True):
            new = capped(logits.float(), self.softcap).logsumexp(1)
            total += float(torch.nn.functional.softplus(new - old).double().sum())
        return total / len(self.log_sum)
