"""New rows of every method: what they are made of, at which norm, and that each row's origin says so."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from vocabgraft.embedding.blend import Blend, blended, calibrated, parts_norms, subword_mean
from vocabgraft.embedding.initialise import METHODS, NewPieces, build_rows, write_rows

NEW = NewPieces([20, 21, 22], ["가나", "▁다라마", "바바"], [(0, 1), (2, 3, 4), (5, 5)])
ALIGNED = {21: Blend((7, 8), (0.75, 0.25))}


@pytest.fixture(scope="module")
def base() -> torch.Tensor:
    return torch.randn(10, 6, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)


def plain(base: torch.Tensor) -> torch.Tensor:
    return calibrated(blended(base, subword_mean(NEW.parts)), parts_norms(base, NEW.parts))


def same_direction(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(a, b, dim=-1), torch.ones(a.shape[:-1]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("route", ["input", "output"])
def test_every_method_gives_finite_rows_of_the_norm_that_is_asked_for(base: torch.Tensor, method, route) -> None:
    rows, origins = build_rows(base, NEW, method=method, route=route, aligned=ALIGNED, share=0.3, norm=0.75)
    assert (rows.shape, rows.dtype) == ((3, 6), torch.float32)
    torch.testing.assert_close(rows.norm(dim=1), 0.75 * parts_norms(base, NEW.parts))
    assert [(o.id, o.route) for o in origins] == [(i, route) for i in NEW.ids]


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("random", "mean")])
def test_parents_and_weights_of_an_origin_make_the_row(base: torch.Tensor, method) -> None:
    rows, origins = build_rows(base, NEW, method=method, aligned=ALIGNED, share=0.3)
    made = torch.stack([torch.tensor(o.weights) @ base[list(o.parents)].float() for o in origins])
    torch.testing.assert_close(made, rows, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(rows.norm(dim=1), torch.tensor([o.norm for o in origins]), atol=1e-4, rtol=0)


def test_eeve_is_the_mean_going_in_and_the_first_subword_coming_out(base: torch.Tensor) -> None:
    going_in, coming_out = (build_rows(base, NEW, method="eeve", route=r) for r in ("input", "output"))
    torch.testing.assert_close(going_in[0], blended(base, subword_mean(NEW.parts)))
    assert torch.equal(coming_out[0], base[[0, 2, 5]].float())
    assert [o.method for o in coming_out[1]] == ["first-subword"] * 3


def test_wechsel_takes_its_blend_where_there_is_one(base: torch.Tensor) -> None:
    rows, origins = build_rows(base, NEW, method="wechsel", aligned=ALIGNED, norm=1.0)
    same_direction(rows[1], 0.75 * base[7].float() + 0.25 * base[8].float())
    assert torch.equal(rows[[0, 2]], plain(base)[[0, 2]])
    assert [o.method for o in origins] == ["subword-mean", "wechsel", "subword-mean"]


def test_a_hybrid_lies_between_both(base: torch.Tensor) -> None:
    methods = (("subword-mean", 1.0), ("hybrid", 0.5), ("wechsel", 1.0))
    found = [build_rows(base, NEW, method=m, aligned=ALIGNED, share=s, norm=1.0)[0][1] for m, s in methods]
    same_direction(found[1], found[0] + found[2])  # both have one norm, so the middle is their sum's direction


def test_a_zero_row_stays_finite() -> None:
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    new = NewPieces([2], ["가나"], [(0, 1)])
    rows, _ = build_rows(opposite, new, method="hybrid", aligned={2: Blend((0, 1), (0.5, 0.5))}, share=0.5, norm=1.0)
    assert torch.isfinite(rows).all()


def test_rows_are_written_a_line_a_row(base: torch.Tensor, tmp_path: Path) -> None:
    _, origins = build_rows(base, NEW, method="hybrid", aligned=ALIGNED, share=0.5)
    seen = [(0.5, ["가", "나"], [0.9, 0.8])] * 3
    write_rows(origins, seen, tmp_path / "rows.parquet")
    found = pl.read_parquet(tmp_path / "rows.parquet")
    assert list(zip(found["id"], found["piece"], strict=True)) == list(zip(NEW.ids, NEW.pieces, strict=True))
    assert found["method"].to_list() == ["subword-mean", "subword-mean + wechsel", "subword-mean"]
    assert found["parents"][1].to_list() == [2, 3, 4, 7, 8]
    assert found["nearest"][2].to_list() == ["가", "나"]


def test_norms_of_a_real_expansion_are_those_of_the_base(world) -> None:
    matrix = world.graft().rows.live["input"].detach()
    new = NewPieces(world.expansion.ids, world.expansion.pieces, world.expansion.parts)
    rows, _ = build_rows(matrix, new, norm=1.0)
    assert rows.shape == (200, matrix.shape[1])
    base = matrix if world.size is None else matrix[: min(world.expansion.ids)]
    assert float(rows.norm(dim=1).mean()) == pytest.approx(float(base.norm(dim=1).mean()), rel=0.05)
