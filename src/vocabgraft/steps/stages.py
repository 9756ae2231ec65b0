"""Phase 3: the seven stages, one function. A stage is a row of the recipe; what it does not name must not move."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from vocabgraft.recipe_sections import Rates
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.embedding import open_state, probe
from vocabgraft.steps.packing import corpus_mixture, rows_per_step, steps_for
from vocabgraft.steps.tokenizer import load_expansion


def train_stage(context: Context) -> StepResult:
    """Train what `[[stage]]` names, prove the rest did not move, measure, save what was learnt."""
    from vocabgraft.training.graft import save_graft

    number = int(context.key[1])
    stage = context.recipe.stage[number - 1]
    previous = state_before(context)
    graft = open_state(context, previous, with_adapters="lora" in stage.train)
    batches = corpus_mixture(context, stage.replay_share, context.recipe.training.seed + number, stage.tokens)
    metrics = run_training(context, graft, batches.batch, stage.train, stage.lr, stage.tokens)
    save_graft(graft, context.out, previous, stage.train)
    if graft.adapters and context.recipe.lora.body != "bf16":
        # Measured as it will ship: adapters on the full-precision body, not on the 4-bit one they trained on.
        del graft
        graft = open_state(context, context.out, with_adapters=True, body="bf16")
    metrics["bits_per_byte"] = probe(context, graft.model, load_expansion(context)[1])
    return StepResult({"name": stage.name, "train": list(stage.train), **metrics})


def state_before(context: Context) -> Path:
    """Folder of what was learnt before this step: the first step it needs."""
    return context.run.path(context.needs[0])


def run_training(
    context: Context, graft: Any, batch_at: Any, groups: Collection[str], rates: Rates, tokens: int
) -> dict[str, Any]:
    """Train a graft in place with checkpoints and a bar; figures for the manifest, freeze proof included."""
    from vocabgraft.training.checkpoint import Checkpoints
    from vocabgraft.training.graft import prove_frozen
    from vocabgraft.training.loop import Schedule, train

    training, machine = context.recipe.training, context.machine
    steps = steps_for(context.recipe, tokens)
    schedule = Schedule(
        groups=tuple(groups),
        steps=steps,
        lr_new=rates.new,
        lr_old=rates.old,
        lr_lora=rates.lora,
        warmup=training.warmup,
        weight_decay=training.weight_decay,
        clip=training.clip,
        row_epsilon=training.row_epsilon,
    )
    before = graft.hashes()
    cpu = time.process_time()
    with context.reporter.bar(f"training {', '.join(groups)}", steps) as advance:
        trained = train(
            graft,
            batch_at,
            schedule,
            micro_batch=machine.micro_batch,
            checkpoints=Checkpoints(context.scratch),
            checkpoint_seconds=machine.checkpoint_seconds,
            on_step=lambda step, loss: advance(1),
        )
    proof = prove_frozen(before, graft.hashes(), groups, free=graft.rows.values_of(groups))
    return {
        "steps": trained.steps,
        "tokens": trained.steps * rows_per_step(context.recipe) * training.window,
        "loss_first": round(trained.losses[0], 5),
        "loss_last": round(trained.losses[-1], 5),
        "losses": [round(x, 5) for x in trained.losses],
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "tokens_per_second": round(trained.tokens / trained.seconds, 1) if trained.tokens else None,
        "frozen": proof,
    }
