"""What goes with the weights that ship: the small adapter folder, the NOTICE and the model card."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from vocabgraft.durable import write_text
from vocabgraft.report.card import model_card, notice
from vocabgraft.report.ledger import read_ledger
from vocabgraft.run import describe_outputs
from vocabgraft.steps.compression import COMPRESSED
from vocabgraft.steps.context import Context
from vocabgraft.steps.embedding import adapter_spec
from vocabgraft.steps.tokenizer import load_expansion

FOLDERS = ("model", "adapter", COMPRESSED)


def ship_adapter(context: Context) -> int:
    """Write `adapter/`: what was learnt apart from the base. Returns its bytes."""
    from vocabgraft.deployment.adapter import BaseModel, write_adapter
    from vocabgraft.training.graft import tensor_ids

    expansion, tokenizer = load_expansion(context)
    base, out = context.recipe.base, context.out / "adapter"
    shutil.rmtree(out, ignore_errors=True)  # of a try that was stopped later
    files = write_adapter(
        context.base_folder(),
        tokenizer,
        context.run.path("41-instruct"),
        tensor_ids(expansion.ids),
        out,
        scale=adapter_spec(context).scale,
        size=expansion.rows,
        named=BaseModel(base.name, base.source, base.license),
    )
    return sum(files.values())


def write_papers(context: Context, metrics: dict[str, Any]) -> None:
    """Write NOTICE, with the base's own, and card into the folders that ship; the card tells this step's figures."""
    ledger = read_ledger(context.run.folder)
    theirs = context.base_folder() / "NOTICE"
    kept = f"\nThe base model's own notice:\n\n{theirs.read_text('utf-8')}" if theirs.is_file() else ""
    folders = [folder for name in FOLDERS if (folder := context.out / name).is_dir()]
    for folder in folders:
        write_text(folder / "NOTICE", notice(ledger) + kept)
    shipped = {"metrics": metrics, "outputs": describe_outputs(context.out)}
    card = model_card(replace(ledger, manifests=ledger.manifests | {context.key: shipped}))
    for folder in folders:
        write_text(folder / "README.md", card)
