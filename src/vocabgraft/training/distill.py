"""The base teaches the new rows: a new piece is a known run of base pieces, so on every text it is the exact teacher.

    student  BOS  혈압이      높다            expanded tokens
    teacher  BOS  혈 압 이    높 다           the same text in base tokens, through the same frozen body
                       ^        ^          compared where both have read the same

The student's hidden state behind a token should be the teacher's behind the last token of its run (Token Distillation,
Dobler et al., arXiv 2505.20133: this teaches input rows), and a new piece should be as probable as its run is by the
chain rule (this teaches output rows). The body stands still, so base rows in base text give the base's own states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocabgraft.corpus.mix import Rows as Batch
from vocabgraft.embedding.rows import Rows
from vocabgraft.models.load import decoder_of, softcap_of
from vocabgraft.training.objective import Workspace, token_nats


@dataclass(frozen=True)
class Lesson:
    """What a batch should give. hidden: (B, T, D). nats: (B, T) of each next token, where there is one."""

    hidden: Tensor
    nats: Tensor

    def hidden_gradient(self, hidden: Tensor, counted: Tensor, strength: float) -> tuple[float, Tensor]:
        """`strength` times the summed squared distance at counted places, as a share of the teacher's mean square; and
        its gradient for `hidden` (B, T, D)."""
        scale = strength / self.hidden[counted].float().square().sum(1).mean()
        apart = (hidden - self.hidden).float() * counted[..., None]
        return float(apart.square().sum() * scale), 2 * scale * apart


class Teacher:
    """Gives lessons by a model whose body and old rows do not train."""

    def __init__(
        self,
        model: Any,
        rows: Rows,
        parts: Mapping[int, Sequence[int]],
        *,
        strength: float = 30.0,
        workspace: Workspace | None = None,
    ) -> None:
        """parts: base ids that spell each new id. strength: weight of hidden states beside that of probabilities.
        workspace: buffers to use, those of the student's loss for one."""
        self._model, self._rows, self.strength = model, rows, strength
        self._runs = Runs(parts, len(rows.is_new))
        self._workspace = workspace or Workspace()

    @torch.no_grad()
    def lesson(self, batch: Batch) -> Lesson:
        """Hidden states and nats of the same text in base tokens."""
        matrix = self._rows.live["output"]
        tokens, positions, ends = (torch.from_numpy(a).to(matrix.device) for a in self._runs.spelt(batch))
        out = decoder_of(self._model)(
            inputs_embeds=self._rows.look_up(tokens), position_ids=positions, attention_mask=None, use_cache=False
        )
        hidden = out.last_hidden_state
        softcap = softcap_of(self._model)
        following = tokens.roll(-1, 1)
        nats = token_nats(
            hidden.flatten(0, 1), following.flatten(), matrix, softcap, self._workspace, without=self._rows.ids
        )
        # Behind token j the student has read up to ends[j]; its next token is the teacher's ends[j] + 1 … ends[j + 1].
        sums = torch.nn.functional.pad(nats.double().view(tokens.shape).cumsum(1), (1, 0))
        nexts = torch.cat([ends[:, 1:], ends[:, -1:]], 1)
        return Lesson(
            hidden=hidden.gather(1, ends[..., None].expand(-1, -1, hidden.shape[2])),
            nats=(sums.gather(1, nexts) - sums.gather(1, ends)).float(),
        )


class Runs:
    """Rows of expanded tokens spelt in base tokens."""

    def __init__(self, parts: Mapping[int, Sequence[int]], size: int) -> None:
        self._sizes = np.ones(size, np.int64)
        for i, run in parts.items():
            self._sizes[i] = len(run)
        self._starts = self._sizes.cumsum() - self._sizes
        self._parts = np.repeat(np.arange(size), self._sizes)
        for i, run in parts.items():
            self._parts[self._starts[i] : self._starts[i] + len(run)] = run

    def spelt(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(tokens, positions) of the same texts in base tokens, (B, longest), and for each expanded token (B, T) the
        place of the last token of its run. Positions restart where the batch's do; rows are padded at the end."""
        sizes = self._sizes[batch.tokens]
        ends = sizes.cumsum(1) - 1
        longest = int(ends[:, -1].max()) + 1
        tokens = np.zeros((len(batch), longest), np.int64)
        positions = np.tile(np.arange(longest), (len(batch), 1))
        for r, (ids, counts, last) in enumerate(zip(batch.tokens, sizes, ends, strict=True)):
            begins = last - counts + 1
            whole = last[-1] + 1
            within = np.arange(whole) - np.repeat(begins, counts)
            tokens[r, :whole] = self._parts[np.repeat(self._starts[ids], counts) + within]
            opens = np.append(begins[batch.positions[r] == 0], whole)
            positions[r] -= opens[np.searchsorted(opens, positions[r], "right") - 1]
        return tokens, positions, ends
