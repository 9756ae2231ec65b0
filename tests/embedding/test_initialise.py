"""New rows: means of the old, at the norm of the old, with WECHSEL mixed in where there is a vector."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vocabgraft.embedding.initialise import build_rows, write_origins
from vocabgraft.embedding.subword import calibrate_norms, subword_mean

PARTS = [(0, 1), (2, 3, 4), (5, 5)]
IDS, PIECES = [20, 21, 22], ["가나", "▁다라마", "바바"]


@pytest.fixture(scope="module")
def base() -> torch.Tensor:
    return torch.randn(10, 6, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)


@pytest.fixture(scope="module")
def wechsel() -> dict[int, tuple[torch.Tensor, list[int], list[float]]]:
    row = torch.randn(6, generator=torch.Generator().manual_seed(1))
    return {21: (row, [7, 8], [0.75, 0.25])}


def same_direction(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(a, b, dim=-1), torch.ones(a.shape[:-1]))


def test_a_subword_mean_is_the_mean_of_its_parts(base: torch.Tensor) -> None:
    rows = subword_mean(base, PARTS)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows[0], (base[0].float() + base[1].float()) / 2)
    torch.testing.assert_close(rows[2], base[5].float())


def test_calibration_gives_the_mean_norm_of_the_parts_and_keeps_the_direction(base: torch.Tensor) -> None:
    rows = subword_mean(base, PARTS)
    calibrated = calibrate_norms(rows, base, PARTS)
    goal = torch.stack([base[list(p)].float().norm(dim=1).mean() for p in PARTS])
    torch.testing.assert_close(calibrated.norm(dim=1), goal)
    same_direction(calibrated, rows)


def test_a_zero_row_stays_finite() -> None:
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    rows, _ = build_rows(opposite, [2], ["가나"], [(0, 1)], {2: (torch.zeros(2), [0], [1.0])}, share=0.5)
    assert torch.isfinite(rows).all()


def test_share_0_is_the_calibrated_mean(base: torch.Tensor, wechsel) -> None:
    rows, origins = build_rows(base, IDS, PIECES, PARTS, wechsel, share=0.0)
    torch.testing.assert_close(rows, calibrate_norms(subword_mean(base, PARTS), base, PARTS))
    assert [o.method for o in origins] == ["subword-mean"] * 3
    assert [o.neighbours for o in origins] == [()] * 3


def test_share_1_is_the_wechsel_row_where_there_is_one(base: torch.Tensor, wechsel) -> None:
    rows, origins = build_rows(base, IDS, PIECES, PARTS, wechsel, share=1.0)
    plain, _ = build_rows(base, IDS, PIECES, PARTS, {}, share=1.0)
    same_direction(rows[1], wechsel[21][0])
    torch.testing.assert_close(rows[1].norm(), plain[1].norm())
    assert torch.equal(rows[[0, 2]], plain[[0, 2]])
    assert [o.method for o in origins] == ["subword-mean", "wechsel", "subword-mean"]


def test_a_share_between_lies_between_both(base: torch.Tensor, wechsel) -> None:
    mean, half, other = (build_rows(base, IDS, PIECES, PARTS, wechsel, share=s)[0][1] for s in (0.0, 0.5, 1.0))
    same_direction(half, mean + other)  # both have one norm, so the middle is their sum's direction
    torch.testing.assert_close(half.norm(), mean.norm())


def test_origins_say_where_each_row_came_from(base: torch.Tensor, wechsel, tmp_path: Path) -> None:
    rows, origins = build_rows(base, IDS, PIECES, PARTS, wechsel, share=0.5)
    counts = write_origins(origins, tmp_path / "rows.jsonl")
    assert counts == {"subword-mean": 2, "subword-mean + wechsel": 1}
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()]
    assert [(x["id"], x["piece"]) for x in lines] == list(zip(IDS, PIECES, strict=True))
    assert (lines[1]["neighbours"], lines[1]["weights"]) == ([7, 8], [0.75, 0.25])
    assert lines[0]["norm"] == pytest.approx(float(rows[0].norm()), abs=1e-4)


def test_norms_of_a_real_expansion_are_those_of_the_base(world) -> None:
    matrix = world.graft().rows.live["input"].detach()
    rows, _ = build_rows(matrix, world.expansion.ids, world.expansion.pieces, world.expansion.parts, {}, share=0.0)
    assert rows.shape == (200, matrix.shape[1])
    base = matrix if world.size is None else matrix[: min(world.expansion.ids)]
    assert float(rows.norm(dim=1).mean()) == pytest.approx(float(base.norm(dim=1).mean()), rel=0.05)
