"""Stages that train output rows alone: one forward pass is kept, and the rest goes over it."""

from __future__ import annotations

import time
from typing import Any

from vocabgraft.durable import digest
from vocabgraft.recipe_sections import Stage
from vocabgraft.steps.context import Context
from vocabgraft.steps.packing import rows_per_step, steps_for


def keep(context: Context, graft: Any, batch_at: Any, stage: Stage) -> Any:
    """The stage's batches as the head sees them, in the step's scratch folder; a killed step finds them there again."""
    from vocabgraft.training.cached import build_cache

    training, steps = context.recipe.training, steps_for(context.recipe, stage.tokens)
    text = [context.run.manifest(k) for k in ("04-preprocess", "13-expand-tokenizer")]
    data = context.recipe.data
    settings = [training.seed, training.window, training.tokens_per_step, stage.replay_share, context.key]
    settings += [stage.mix, data.temperature, data.max_epochs]
    key = digest([graft.hashes(), [m.fingerprint for m in text if m], settings])
    with context.reporter.bar("hidden states", steps) as advance:
        return build_cache(
            graft,
            batch_at,
            steps,
            context.scratch / "kept",
            key=key,
            micro_batch=context.machine.micro_batch,
            on_batch=lambda: advance(1),
        )


def sweep(context: Context, graft: Any, cache: Any, stage: Stage) -> dict[str, Any]:
    """Train new output rows at every rate side by side; the graft gets those that are best on held-out text."""
    from vocabgraft.training.cached_passes import Setting, train_cached

    training = context.recipe.training
    rates = dict.fromkeys((stage.lr.new or 0.0, *stage.sweep))
    settings = [Setting(lr, training.weight_decay, stage.pull) for lr in rates]
    cpu = time.process_time()
    with context.reporter.bar(f"{len(settings)} rates, {stage.epochs} epochs", stage.epochs * len(cache)) as advance:
        outcomes = train_cached(
            cache,
            graft.rows.new["output"],
            settings,
            epochs=stage.epochs,
            seed=training.seed,
            warmup=training.warmup,
            clip=training.clip,
            row_epsilon=training.row_epsilon,
            dtype=graft.rows.live["output"].dtype,
            on_batch=lambda: advance(1),
        )
    best = min(outcomes, key=lambda o: min(o.held_out))
    graft.rows.load({"output.new": best.rows})
    return {
        "steps": best.best * len(cache),
        "tokens": len(cache) * rows_per_step(context.recipe) * training.window,
        "rate": best.setting.lr,
        "epoch": best.best,
        "sweep": [{"lr": o.setting.lr, "held_out": o.held_out, "trained": o.trained} for o in outcomes],
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }
