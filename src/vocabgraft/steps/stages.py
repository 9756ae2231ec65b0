"""Phase 3: the seven stages, one function. A stage is a row of the recipe; what it does not name must not move."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from vocabgraft.machine import give_back_memory
from vocabgraft.recipe_sections import Stage
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.embedding import open_state, probe
from vocabgraft.steps.kept import held_out_steps, keep, kept_batches, sweep
from vocabgraft.steps.mixing import check_mix, told
from vocabgraft.steps.packing import corpus_mixture, rows_per_step, schedule_of, steps_for
from vocabgraft.steps.tokenizer import load_expansion
from vocabgraft.steps.tracking import tracked
from vocabgraft.team import ALONE


def train_stage(context: Context) -> StepResult:
    """Train what `[[stage]]` names, prove the rest did not move, measure, save what was learnt."""
    from vocabgraft.training.graft import save_graft

    number, stages = int(context.key[1]), context.recipe.stage
    previous = state_before(context)
    if number > len(stages):
        return _passed_on(context, previous) if context.team.leads else StepResult()
    stage = stages[number - 1]
    if stage.cached and not context.team.leads:
        return StepResult()  # one forward pass and cheap ones: the leader does it alone
    check_mix(context)
    graft = open_state(context, previous, with_adapters="lora" in stage.train)
    seed = context.recipe.training.seed + number
    apart = False if held_out_steps(context.recipe, stage) else None
    batches = corpus_mixture(context, stage.replay_share, seed, stage.tokens, mix=stage.mix, apart=apart)
    if stage.cached:
        metrics = _over_kept(context, graft, kept_batches(context, batches, stage, seed), stage)
    else:
        steps = steps_for(context.recipe, stage.tokens)
        schedule = schedule_of(context.recipe, stage.train, stage.lr, steps, retain=stage.retain)
        metrics = run_training(context, graft, batches.batch, schedule)
    if not context.team.leads:
        return StepResult()
    metrics["mix"] = told(context, batches, min(metrics["steps"], steps_for(context.recipe, stage.tokens)))
    save_graft(graft, context.out, previous, stage.train)
    if graft.adapters and context.recipe.lora.body != "bf16":
        # Measured as it will ship: adapters on the full-precision body, not on the 4-bit one they trained on.
        del graft
        give_back_memory()  # parts of a model refer to each other: without this, both are held
        graft = open_state(context, context.out, with_adapters=True, body="bf16")
    metrics["bits_per_byte"] = probe(context, graft.model, load_expansion(context)[1])
    return StepResult({"name": stage.name, "train": list(stage.train), **metrics})


def _passed_on(context: Context, previous: Path) -> StepResult:
    """The recipe has no such stage: what was learnt goes on to the next step, as links."""
    from vocabgraft.training.graft import ADAPTERS, NEW, OLD, carry

    for name in (NEW, OLD, ADAPTERS):
        if (previous / name).exists():
            carry(previous / name, context.out / name)
    return StepResult({"name": "not in this recipe", "train": []})


def state_before(context: Context) -> Path:
    """Folder of what was learnt before this step: the first step it needs."""
    return context.run.path(context.needs[0])


def run_training(context: Context, graft: Any, batch_at: Any, schedule: Any, *, cache: Any = None) -> dict[str, Any]:
    """Train a graft in place with checkpoints and a bar; figures for the manifest, freeze proof included.

    batch_at and schedule: as `training.loop.train` takes them. cache: kept hidden states in place of batches.
    """
    from vocabgraft.training.checkpoint import Checkpoints
    from vocabgraft.training.graft import prove_frozen
    from vocabgraft.training.loop import train
    from vocabgraft.training.meters import RowMeter, sightings

    machine, groups = context.machine, schedule.groups
    before, meter, guard = graft.hashes(), RowMeter(graft.rows), guard_of(context, graft)
    cpu = time.process_time()
    with context.reporter.bar(f"training {', '.join(groups)}", schedule.steps) as advance, tracked(context) as log:

        def show(step: int, loss: float) -> None:
            advance(1)
            log(step, {"loss": loss, "rate": schedule.factor(step)})

        trained = train(
            graft,
            batch_at,
            schedule,
            micro_batch=machine.micro_batch,
            checkpoints=Checkpoints(context.scratch, machine.checkpoint_seconds),
            on_step=show,
            cache=cache,
            guard=guard,
            team=ALONE if cache else context.team,
            recompute=_must_recompute(context),
        )
    cpu = time.process_time() - cpu
    graft.workspace.clear()  # what comes next measures, in blocks of its own
    proof = prove_frozen(before, graft.hashes(), groups, free=graft.rows.values_of(groups))
    return {
        "steps": trained.steps,
        "tokens": trained.steps * rows_per_step(context.recipe) * context.recipe.training.window,
        "loss_first": round(trained.losses[0], 5),
        "loss_last": round(trained.losses[-1], 5),
        "losses": [round(x, 5) for x in trained.losses],
        "cpu_seconds": round(cpu, 2),
        "tokens_per_second": round(trained.tokens / trained.seconds, 1) if trained.tokens else None,
        "optimizer": trained.optimizer,
        "rows": meter.read(sightings(batch_at, trained.steps, graft.rows)),
        "guard": guard and {"limit": round(guard.limit, 5), "looks": guard.looks},
        "frozen": proof,
    }


def _must_recompute(context: Context) -> bool:
    import torch

    from vocabgraft.forecast import needs_recompute

    cpu, machine = context.device() == "cpu", context.machine
    memory = machine.memory_gb if cpu else torch.cuda.get_device_properties(0).total_memory / 2**30
    return needs_recompute(context.recipe, context.key, cpu=cpu, memory_gb=memory, micro_batch=machine.micro_batch)


def guard_of(context: Context, graft: Any) -> Any:
    """Watches held-out replay text as `[watch]` asks; None when it does not."""
    from vocabgraft.training.guard import Guard

    watch, start = context.recipe.watch, context.run.manifest("22-initialise")
    if watch.limit is None or start is None:
        return None

    def measure() -> float:
        with graft.rows.merged():
            return probe(context, graft.model, load_expansion(context)[1], ("replay",))["replay"]

    return Guard(
        measure=measure,
        limit=start.metrics["bits_per_byte"]["replay"]["base"] * (1 + watch.limit),
        every=steps_for(context.recipe, watch.every),
        roll_back=watch.then == "roll back",
    )


def _over_kept(context: Context, graft: Any, batch_at: Any, stage: Stage) -> dict[str, Any]:
    """A stage of output rows: several passes over hidden states that the first one keeps."""
    from vocabgraft.training.cached import described
    from vocabgraft.training.graft import prove_frozen

    cpu, before = time.process_time(), graft.hashes()
    cache = keep(context, graft, batch_at, stage)
    spent = time.process_time() - cpu
    if stage.train == ("output.new",):
        metrics = sweep(context, graft, cache, stage)
        free = graft.rows.values_of(stage.train)
        metrics["frozen"] = prove_frozen(before, graft.hashes(), stage.train, free=free)
        guard = guard_of(context, graft)
        if guard and not guard.holds(metrics["steps"]):
            guard.last_good()  # refuses: passes over kept states have no point to go back to
    else:
        steps = stage.epochs * len(cache)
        schedule = schedule_of(context.recipe, stage.train, stage.lr, steps)
        metrics = run_training(context, graft, batch_at, schedule, cache=cache)
    return metrics | {"kept": described(cache), "cpu_seconds": round(metrics["cpu_seconds"] + spent, 2)}
