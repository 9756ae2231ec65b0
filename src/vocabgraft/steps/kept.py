"""Stages that train output rows alone: one forward pass is kept, and the rest goes over it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from vocabgraft.durable import digest
from vocabgraft.recipe import Recipe
from vocabgraft.recipe_sections import Stage
from vocabgraft.steps.context import Context
from vocabgraft.steps.packing import corpus_mixture, rows_per_step, steps_for

_HELD_OUT = 10  # one step in so many


def held_out_steps(recipe: Recipe, stage: Stage) -> int:
    """How many of the stage's steps are not trained on but judge by other documents, which rate and epoch are best."""
    return (
        max(1, steps_for(recipe, stage.tokens) // _HELD_OUT) if stage.cached and stage.train == ("output.new",) else 0
    )


def kept_batches(context: Context, mixture: Any, stage: Stage, seed: int) -> Callable[[int], Any]:
    """Batches of a stage over kept hidden states; the last `held_out_steps` of them read documents kept apart."""
    held, steps = held_out_steps(context.recipe, stage), steps_for(context.recipe, stage.tokens)
    if not held:
        batch: Callable[[int], Any] = mixture.batch
        return batch
    tokens = held * rows_per_step(context.recipe) * context.recipe.training.window
    apart = corpus_mixture(context, stage.replay_share, seed, tokens, mix=stage.mix, apart=True)
    return lambda n: mixture.batch(n) if n < steps - held else apart.batch(n - steps + held)


def keep(context: Context, graft: Any, batch_at: Any, stage: Stage) -> Any:
    """The stage's batches as the head sees them, in the step's scratch folder; a killed step finds them there again."""
    from vocabgraft.training.cached import build_cache

    training, steps = context.recipe.training, steps_for(context.recipe, stage.tokens)
    text = [context.run.manifest(k) for k in ("04-preprocess", "13-expand-tokenizer")]
    data = context.recipe.data
    settings = [training.seed, training.window, training.tokens_per_step, stage.replay_share, context.key]
    settings += [stage.mix, data.temperature, data.max_epochs, held_out_steps(context.recipe, stage)]
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
    cpu, held = time.process_time(), held_out_steps(context.recipe, stage)
    with context.reporter.bar(f"{len(settings)} rates, {stage.epochs} epochs", stage.epochs * len(cache)) as advance:
        outcomes = train_cached(
            cache,
            graft.rows.new["output"],
            settings,
            held_out=held,
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
        "steps": best.best * (len(cache) - held),
        "tokens": len(cache) * rows_per_step(context.recipe) * training.window,
        "rate": best.setting.lr,
        "epoch": best.best,
        "sweep": [{"lr": o.setting.lr, "held_out": o.held_out, "trained": o.trained} for o in outcomes],
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }
