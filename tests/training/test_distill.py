"""The base as teacher: the same text, the same places, the probability of the run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.corpus.mix import pack_documents
from vocabgraft.models.packed import hidden_states
from vocabgraft.tokenizer.measure import encode, load_tokenizer
from vocabgraft.training.distill import Runs, Teacher
from vocabgraft.training.loop import Schedule, train

PARTS = {20: (3, 4), 21: (5, 6, 7), 22: (4, 4)}
DOCUMENTS = st.lists(st.lists(st.sampled_from([3, 4, 5, 6, *PARTS]), min_size=1, max_size=30), min_size=1, max_size=5)


@given(documents=DOCUMENTS, window=st.integers(8, 24))
def test_rows_are_spelt_in_the_parts_of_their_pieces(documents: list[list[int]], window: int) -> None:
    batch = pack_documents(documents, window, bos=2)
    tokens, positions, ends = Runs(PARTS, 30).spelt(batch)
    for r in range(len(batch)):
        spelt, expected_positions, expected_ends = [], [], []
        for token, position in zip(batch.tokens[r].tolist(), batch.positions[r].tolist(), strict=True):
            for n, part in enumerate(PARTS.get(token, (token,))):
                restarts = position == 0 and n == 0
                expected_positions.append(0 if restarts else expected_positions[-1] + 1)
                spelt.append(part)
            expected_ends.append(len(spelt) - 1)
        assert tokens[r, : len(spelt)].tolist() == spelt
        assert positions[r, : len(spelt)].tolist() == expected_positions
        assert ends[r].tolist() == expected_ends
        assert positions[r, len(spelt) :].tolist() == list(range(tokens.shape[1] - len(spelt)))


def teacher(world, graft) -> Teacher:
    return Teacher(graft.model, graft.rows, dict(zip(world.expansion.ids, world.expansion.parts, strict=True)))


def test_a_lesson_is_what_the_base_says_of_the_same_text(world) -> None:
    text = world.korean[0]
    old, new = (encode(load_tokenizer(folder), [text])[0] for folder in (world.base, world.tokenizer))
    batch = pack_documents([new], len(new) + 1, bos=2)
    graft = world.graft()
    lesson = teacher(world, graft).lesson(batch)

    with torch.no_grad():
        out = graft.model(input_ids=torch.tensor([[2, *old]]), output_hidden_states=True, use_cache=False)
    logits = out.logits[0].clone()
    logits[:, world.ids] = -torch.inf
    steps = logits[:-1].log_softmax(1).gather(1, torch.tensor(old)[:, None])[:, 0]
    at, behind = 0, []
    parts = dict(zip(world.expansion.ids, world.expansion.parts, strict=True))
    for n, token in enumerate(new):
        run = len(parts.get(token, (token,)))
        behind.append(at)
        assert lesson.nats[0, n] == pytest.approx(-float(steps[at : at + run].sum()), rel=1e-4, abs=1e-4)
        at += run
    assert at == len(old)
    assert len(new) < len(old)
    torch.testing.assert_close(lesson.hidden[0, : len(new)], out.hidden_states[-1][0, behind], rtol=1e-4, atol=1e-4)


def test_old_text_teaches_what_the_student_knows(world) -> None:
    graft = world.graft()
    tokenizer = load_tokenizer(world.base)
    batch = pack_documents(encode(tokenizer, world.english[:2]), 48, bos=2)
    lesson = teacher(world, graft).lesson(batch)
    hidden = hidden_states(
        graft.model, graft.rows.look_up(torch.from_numpy(batch.tokens)), torch.from_numpy(batch.positions)
    )
    counted = torch.from_numpy(batch.targets >= 0)
    torch.testing.assert_close(lesson.hidden[counted], hidden[counted], rtol=1e-4, atol=1e-4)
    distance, gradient = lesson.hidden_gradient(hidden.detach(), counted, 1.0)
    assert distance == pytest.approx(0, abs=1e-6)
    assert float(gradient.abs().max()) < 1e-4


def test_the_gradient_of_hidden_states_is_autograds(world) -> None:
    graft, batch = world.graft(), world.mixture().batch(0)
    lesson, counted = teacher(world, graft).lesson(batch), torch.from_numpy(batch.targets >= 0)
    hidden = torch.randn(lesson.hidden.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mean = lesson.hidden[counted].square().sum(1).mean()
    loss = 3.0 * (hidden - lesson.hidden)[counted].square().sum() / mean
    loss.backward()
    distance, gradient = lesson.hidden_gradient(hidden.detach(), counted, 3.0)
    assert distance == pytest.approx(float(loss.detach()), rel=1e-4)
    torch.testing.assert_close(gradient, hidden.grad, rtol=1e-4, atol=1e-6)


def test_taught_rows_come_nearer_to_the_base_and_nothing_else_moves(world) -> None:
    graft, batch = world.graft(), world.mixture().batch(0)
    before, groups = graft.hashes(), ("input.new", "output.new")
    schedule = Schedule(groups, 12, lr_new=1e-2)
    found = train(graft, lambda step: batch, schedule, micro_batch=2, teacher=teacher(world, graft))
    assert found.losses[-1] < 0.9 * found.losses[0]
    after = graft.hashes()
    moved = {k for k in before if before[k] != after[k]}
    assert moved == {"input.new"} if graft.rows.tied else moved == {"input.new", "output.new"}
    assert np.isfinite(found.losses).all()
