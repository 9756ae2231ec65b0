"""What new rows take from the old on old text is the KL of the two softmaxes, computed the long way."""

from __future__ import annotations

import math

import pytest
import torch

from vocabgraft.evaluation.taken import OldText
from vocabgraft.models.load import load_model
from vocabgraft.tokenizer.measure import load_tokenizer


@pytest.fixture(scope="module")
def old_text(world) -> tuple[OldText, torch.nn.Module]:
    graft = world.graft()
    texts = [t[:200] for t in world.english[:3]]
    return OldText(graft.model, load_tokenizer(world.base), texts, world.ids, bos=2), graft


def test_it_is_the_kl_of_the_old_pieces(world, old_text) -> None:
    text, graft = old_text
    rows = torch.randn(len(world.ids), graft.rows.live["output"].shape[1], generator=torch.Generator().manual_seed(0))
    graft.rows.load({f"{r}.new": rows for r in graft.rows.routes()})
    tokenizer, total, count = load_tokenizer(world.base), 0.0, 0
    for english in world.english[:3]:
        ids = torch.tensor([[2, *tokenizer.encode(english[:200], add_special_tokens=False).ids]])
        with torch.no_grad():
            logits = graft.model(ids).logits[0].double()
        old = torch.ones(logits.shape[1], dtype=torch.bool)
        old[world.ids] = False
        before = logits[:, old].log_softmax(1)
        after = logits.log_softmax(1)[:, old]
        total += float((before.exp() * (before - after)).sum())
        count += len(logits)
    assert text.taken_by(rows) == pytest.approx(total / count, rel=1e-4)


def test_rows_that_are_the_mean_of_all_take_no_more_than_the_bound(world, old_text) -> None:
    text, graft = old_text
    matrix = load_model(world.base, dtype="float32").get_output_embeddings().weight
    old = torch.ones(len(matrix), dtype=torch.bool)
    old[world.ids[world.ids < len(matrix)]] = False
    taken = text.taken_by(matrix[old].mean(0).expand(len(world.ids), -1))
    size = len(graft.rows.live["output"]) - len(world.ids)  # padding counts as old
    assert taken <= math.log1p(len(world.ids) / int(old.sum())) + 1e-6
    assert taken > 0.5 * math.log1p(len(world.ids) / size)
