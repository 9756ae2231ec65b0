"""New rows taught by the base: they move, are told as such, and are reported with norms and neighbours."""

from __future__ import annotations

import polars as pl
from safetensors.torch import load_file

from vocabgraft.machine import detect
from vocabgraft.pipeline import execute
from vocabgraft.run import Run


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
        assert rows["method"].unique().to_list() == [method]
        assert (rows["norm"] - pl.Series(norms[method].tolist())).abs().max() < 1e-4
        assert sum(metrics["norm_histogram"]["counts"]["input"]) == len(rows)
        assert {"piece", "method", "parts", "nearest"} == set(metrics["examples"][0])
    moved = (values["distilled"] - values["subword-mean"]).norm(dim=1)
    assert moved.max() > 1e-3
    assert (moved < norms["subword-mean"]).all(), "taught, not thrown away"
