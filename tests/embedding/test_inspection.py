"""New rows beside old ones: norms and ranks, copies, broken rows, neighbours; every problem is told with its fix."""

from __future__ import annotations

import pytest
import torch

from vocabgraft.embedding.inspection import Inspection, Limits, inspect_rows, nearest, problems

LIMITS = Limits(0.3, 1.7, 0.01, 0.2)


@pytest.fixture(scope="module")
def base() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=1)


OLD = torch.arange(50) < 40


def test_norms_are_told_beside_those_of_old_rows(base: torch.Tensor) -> None:
    found = inspect_rows(torch.stack([base[0] * 0.5, base[1] * 2, base[2]]), base, OLD)
    assert found.norms == pytest.approx((0.5, 1.0, 2.0), abs=1e-3)
    assert found.ranks[0] == 0.0
    assert found.ranks[1] == 1.0
    assert (found.copies, found.broken) == (0, 0)
    assert sum(found.histogram) == 3
    assert found.histogram[-1] == 1, "twice the median is in the last bin"


def test_copies_and_broken_rows_are_counted(base: torch.Tensor) -> None:
    rows = torch.stack([base[0], base[0], base[1], base[0], torch.zeros(8), torch.full((8,), torch.nan)])
    found = inspect_rows(rows, base, OLD)
    assert (found.copies, found.broken) == (2, 2)


def test_rows_that_differ_by_less_than_the_matrix_can_hold_are_copies(base: torch.Tensor) -> None:
    rows = torch.stack([base[0], base[0] * (1 + 1e-5)])
    assert inspect_rows(rows, base.to(torch.bfloat16), OLD).copies == 1
    assert inspect_rows(rows, base, OLD).copies == 0


def test_neighbours_are_old_rows_by_cosine(base: torch.Tensor) -> None:
    rows = torch.stack([3 * base[7] + 0.1 * base[9], base[45]])
    ids, cosines = nearest(rows, base, OLD, 5)
    assert ids[0, 0] == 7
    assert (ids < 40).all(), "rows that are not in use are no neighbours"
    expected = torch.nn.functional.cosine_similarity(rows[0][None], base[ids[0]], dim=1)
    torch.testing.assert_close(cosines[0], expected)
    assert (cosines[:, :-1] >= cosines[:, 1:]).all()


def test_what_is_out_of_bounds_is_told_at_once() -> None:
    fine = Inspection((0.7, 0.75, 0.8), torch.zeros(100), (), copies=1, broken=0)
    assert problems(fine, 100, 20, LIMITS) == []
    bad = Inspection((0.1, 0.75, 2.0), torch.zeros(100), (), copies=2, broken=1)
    told = problems(bad, 100, 21, LIMITS)
    assert len(told) == 4
    for text, fix in zip(told, ("init.method", "init.norm", "init.method", "tokenizer.min_count"), strict=True):
        assert fix in text
