"""New rows taught by the base: they move, are told as such, and are reported with norms and neighbours."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from vocabgraft.errors import ProofError
from vocabgraft.machine import detect
from vocabgraft.pipeline import execute
from vocabgraft.run import Run
from vocabgraft.steps import embedding


def test_taught_rows_are_told_from_means(recipe, tmp_path, monkeypatch) -> None:
    """Whether teaching helps is asked of a real model (docs/results.md): this one has random weights."""
    monkeypatch.chdir(tmp_path)
    values, norms = {}, {}
    for method in ("subword-mean", "distilled"):
        run = Run.create(tmp_path / method, recipe(f"init.method={method}", "init.tokens=4096"), "")
        execute(run, detect(tmp_path), until="22")
        metrics = run.manifest("22-initialise").metrics
        rows = pl.read_parquet(run.path("22-initialise", "rows.parquet"))
        values[method] = load_file(run.path("22-initialise", "new_rows.safetensors"))["input.new"]
        norms[method] = values[method].norm(dim=1)
        assert set(metrics["methods"]) == {method}
        assert metrics["frozen"]["names"] == ["body", "input.old"]
        assert rows["method"].unique().to_list() == [method]
        assert (rows["norm"] - pl.Series(norms[method].tolist())).abs().max() < 1e-4
        assert sum(metrics["norm_histogram"]["counts"]["input"]) == len(rows)
        assert {"piece", "method", "parts", "nearest"} == set(metrics["examples"][0])
    moved = (values["distilled"] - values["subword-mean"]).norm(dim=1)
    assert moved.max() > 1e-3
    assert (moved < norms["subword-mean"]).all(), "taught, not thrown away"


def test_rows_are_taught_whatever_kernels_the_stages_use(done) -> None:
    run = done("init.method=distilled", "init.tokens=1024", "training.loss=torch", until="31")
    assert run.manifest("31-stage1").metrics["frozen"]["identical"]


@pytest.mark.parametrize("part", ["input.old", "body"])
def test_a_start_that_moves_anything_else_is_refused(recipe, tmp_path, monkeypatch, part) -> None:
    monkeypatch.chdir(tmp_path)
    real = embedding.start

    def careless(context, graft, init, seed):
        found = real(context, graft, init, seed)
        kept = [i for i in range(len(graft.rows.is_new)) if not graft.rows.is_new[i]]
        weight = graft.rows.live["input"] if part == "input.old" else graft.model.model.norm.weight
        with torch.no_grad():
            weight[kept[3] if part == "input.old" else 0] += 0.5
        return found

    monkeypatch.setattr(embedding, "start", careless)
    run = Run.create(tmp_path / "run", recipe("init.method=subword-mean"), "")
    with pytest.raises(ProofError, match=rf"^{part} moved while training only input\.new, output\.new"):
        execute(run, detect(tmp_path), until="22")
    assert run.manifest("22-initialise") is None
