"""Stages over kept hidden states: what moves, what is told; a step without a stage passes on what was learnt."""

from __future__ import annotations

import os
from collections import defaultdict

import pytest
from safetensors.torch import load_file

from vocabgraft.corpus.document import read_documents
from vocabgraft.machine import detect
from vocabgraft.pipeline import execute
from vocabgraft.run import Run
from vocabgraft.steps.context import Context, Silent
from vocabgraft.steps.kept import held_out_steps, kept_batches
from vocabgraft.steps.packing import corpus_mixture, steps_for
from vocabgraft.steps.tokenizer import load_expansion
from vocabgraft.tokenizer.measure import load_tokenizer

LEAN = ["preset=lean", "init.row_untied=true", "init.method=distilled", "init.tokens=1024", "stage.0.tokens=4096"]


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The shorter path on random weights, up to the end of the stages."""
    from vocabgraft.recipe import load_recipe

    folder = tmp_path_factory.mktemp("lean")
    run = Run.create(folder / "run", load_recipe("tiny-cpu", LEAN), "")
    execute(run, detect(folder), until="37")
    return run


def test_a_sweep_moves_new_output_rows_alone_and_tells_what_it_tried(lean: Run) -> None:
    metrics = lean.manifest("31-stage1").metrics
    before, after = (load_file(lean.path(k, "new_rows.safetensors")) for k in ("22-initialise", "31-stage1"))
    assert (before["input.new"] == after["input.new"]).all()
    assert (before["output.new"] != after["output.new"]).any() or metrics["epoch"] == 0
    assert metrics["frozen"]["identical"]
    assert {"input.new", "input.old", "body"} <= set(metrics["frozen"]["names"])
    assert [s["lr"] for s in metrics["sweep"]] == [3e-4, 1e-4, 1e-3]
    best = min(metrics["sweep"], key=lambda s: min(s["held_out"]))
    assert (metrics["rate"], metrics["epoch"]) == (best["lr"], best["held_out"].index(min(best["held_out"])))
    assert metrics["kept"]["batches"] == 8


def test_rates_are_judged_on_documents_that_no_step_reads(lean: Run) -> None:
    """Rows that learn a law by heart are better on the rest of that law, and worse on every other."""
    context = Context("31-stage1", (), lean.recipe, lean, lean.folder, detect(lean.folder), Silent())
    stage, steps = lean.recipe.stage[0], steps_for(lean.recipe, lean.recipe.stage[0].tokens)
    held = held_out_steps(lean.recipe, stage)
    mixture = corpus_mixture(context, stage.replay_share, 1, stage.tokens, apart=False)
    batch_at = kept_batches(context, mixture, stage, 1)
    tokenizer = load_tokenizer(load_expansion(context)[1])
    owners: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for side in ("target", "replay"):
        for document in read_documents(lean.path("04-preprocess", f"{side}.train.jsonl")):
            ids = tokenizer.encode(document.text, add_special_tokens=False).ids
            for at in range(len(ids) - 15):
                owners[tuple(ids[at : at + 16])].add(document.id)

    def read(numbers: range) -> set[str]:
        rows = [row.tolist() for n in numbers for row in batch_at(n).tokens]
        found = [owners.get(tuple(row[at : at + 16]), set()) for row in rows for at in range(len(row) - 15)]
        return {next(iter(names)) for names in found if len(names) == 1}

    training, judging = read(range(steps - held)), read(range(steps - held, steps))
    assert (held, steps) == (1, 8)
    assert training
    assert judging
    assert not training & judging


def test_steps_without_a_stage_pass_on_what_was_learnt(lean: Run) -> None:
    for number in (4, 5, 6, 7):
        key, previous = f"3{number}-stage{number}", f"3{number - 1}-stage{number - 1}"
        assert lean.manifest(key).metrics["train"] == []
        for name in ("new_rows.safetensors", "adapters.safetensors"):
            assert os.path.samefile(lean.path(key, name), lean.path(previous, name))
