"""Blends of base rows: the weights each method gives, sums, norms; noise and means for comparison."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.embedding.blend import (
    Blend,
    blended,
    calibrated,
    first_subword,
    length_weighted,
    mean_of_all,
    parts_norms,
    random_rows,
    subword_mean,
)

PARTS = [(0, 1), (2, 3, 4), (5, 5)]


@pytest.fixture(scope="module")
def base() -> torch.Tensor:
    return torch.randn(10, 6, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)


def test_methods_weigh_parts_as_they_say() -> None:
    assert subword_mean([(1, 2)]) == [Blend((1, 2), (0.5, 0.5))]
    assert first_subword([(3, 2)]) == [Blend((3,), (1.0,))]
    assert length_weighted([(1, 2)], {1: 3.0, 2: 1.0}.get) == [Blend((1, 2), (0.75, 0.25))]
    assert length_weighted([(1, 2)], lambda i: 0.0) == subword_mean([(1, 2)])


def test_a_subword_mean_is_the_mean_of_its_parts(base: torch.Tensor) -> None:
    rows = blended(base, subword_mean(PARTS))
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows[0], (base[0].float() + base[1].float()) / 2)
    torch.testing.assert_close(rows[2], base[5].float())


ROWS = st.lists(st.lists(st.tuples(st.integers(0, 9), st.floats(-2, 2)), max_size=5), max_size=8)


@given(rows=ROWS)
def test_a_blend_is_the_weighted_sum_of_its_parents(rows) -> None:
    base = torch.arange(60.0).reshape(10, 6) / 10
    blends = [Blend(tuple(i for i, _ in row), tuple(w for _, w in row)) for row in rows]
    expected = torch.zeros(len(rows), 6)
    for n, row in enumerate(rows):
        for i, w in row:
            expected[n] += w * base[i]
    torch.testing.assert_close(blended(base, blends), expected)


def test_calibration_gives_the_mean_norm_of_the_parts_and_keeps_the_direction(base: torch.Tensor) -> None:
    rows = blended(base, subword_mean(PARTS))
    found = calibrated(rows, parts_norms(base, PARTS), 0.5)
    goal = torch.stack([base[list(p)].float().norm(dim=1).mean() for p in PARTS])
    torch.testing.assert_close(found.norm(dim=1), 0.5 * goal)
    cosines = torch.nn.functional.cosine_similarity(found, rows, dim=1)
    torch.testing.assert_close(cosines, torch.ones(len(PARTS)))


def test_the_mean_and_the_noise_are_those_of_the_whole_matrix() -> None:
    base = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 2.0, 3.0, 4.0]) + 5
    torch.testing.assert_close(mean_of_all(base, 3), base.mean(0).expand(3, -1))
    noise = random_rows(base, 20_000, seed=0)
    torch.testing.assert_close(noise.std(0), base.std(0), rtol=0.05, atol=0)
    torch.testing.assert_close(noise.mean(0), base.mean(0), rtol=0.05, atol=0)
    assert torch.equal(noise, random_rows(base, 20_000, seed=0))
    assert not torch.equal(noise, random_rows(base, 20_000, seed=1))
