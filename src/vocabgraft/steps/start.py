"""Give new rows their values as `[init]` says: blends of base rows, or rows that the base itself has taught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from vocabgraft.recipe_sections import Init, Rates
from vocabgraft.steps.context import Context
from vocabgraft.steps.data import texts
from vocabgraft.steps.dictionary import entries
from vocabgraft.steps.packing import corpus_mixture, schedule_of, steps_for
from vocabgraft.steps.tokenizer import load_expansion
from vocabgraft.tokenizer.measure import encode, load_tokenizer

BOTH = ("input.new", "output.new")
_VECTOR_TEXTS = 20_000  # documents of each side that static vectors are trained on


def start(context: Context, graft: Any, init: Init, seed: int) -> tuple[list[Any], Any]:
    """Give the graft's new rows their values, in place; the origin of each row, and how good the alignment with the
    replay language is (None for methods that want none)."""
    aligned, alignment = _aligned_blends(context, init, seed)
    state, origins = _blended_rows(context, graft, init, aligned, seed)
    graft.rows.load(state)
    if init.method == "distilled":
        teach(context, graft, init, seed)
        norms = [float(n) for route in graft.rows.routes() for n in graft.rows.new[route].detach().norm(dim=1)]
        origins = [replace(o, method="distilled", norm=round(n, 4)) for o, n in zip(origins, norms, strict=True)]
    return origins, alignment


def teach(context: Context, graft: Any, init: Init, seed: int) -> None:
    """Teach the new rows, in place, what the base says of target text; the body and the old rows stand still."""
    from vocabgraft.training.distill import Teacher

    expansion = load_expansion(context)[0]
    batches = corpus_mixture(context, 0.0, seed, init.tokens, init.tokens_per_step)
    steps = steps_for(context.recipe, init.tokens, init.tokens_per_step)
    parts = dict(zip(expansion.ids, expansion.parts, strict=True))
    teacher = Teacher(graft.model, graft.rows, parts, workspace=graft.workspace)
    # AdamW moves a number by about the rate whatever its size, and rows of other models are three times as large.
    lr = init.relative_lr * graft.rows.size_of_values()
    schedule = schedule_of(context.recipe, BOTH, Rates(new=lr), steps)
    # Other kernels know no teacher; the stages may use them.
    schedule = replace(schedule, backend="ours", row_epsilon=init.row_epsilon)
    train_rows(context, graft, batches, schedule, "rows learn from the base", teacher)
    graft.workspace.clear()  # half a gigabyte on a vocabulary of 262,144, and the step goes on


def train_rows(
    context: Context,
    graft: Any,
    batches: Any,
    schedule: Any,
    label: str,
    teacher: Any = None,
    checkpoints: Path | None = None,
) -> None:
    """Train the new rows alone, in place, by a schedule of theirs. checkpoints: their folder; it goes on from there."""
    from vocabgraft.training.checkpoint import Checkpoints
    from vocabgraft.training.loop import train

    with context.reporter.bar(label, schedule.steps) as advance:
        train(
            graft,
            batches.batch,
            schedule,
            micro_batch=context.machine.micro_batch,
            checkpoints=Checkpoints(checkpoints, context.machine.checkpoint_seconds) if checkpoints else None,
            on_step=lambda step, loss: advance(1),
            teacher=teacher,
        )


def _blended_rows(
    context: Context, graft: Any, init: Init, aligned: dict[int, Any], seed: int
) -> tuple[dict[str, Any], list[Any]]:
    """Rows of the new pieces by master ('input.new', …) as `init` says, and the origin of each; changes nothing."""
    from vocabgraft.embedding.initialise import NewPieces, build_rows

    expansion, _ = load_expansion(context)
    new = NewPieces(expansion.ids, expansion.pieces, expansion.parts)
    length = _letters(load_tokenizer(context.base_folder()))
    state, origins = {}, []
    for route in graft.rows.routes():
        # A row for the input route alone takes the full norm: the shorter one is for scoring.
        norm = init.norm if graft.rows.shared["new"] or route == "output" else float(init.norm > 0)
        state[f"{route}.new"], found = build_rows(
            graft.rows.live[route].detach(),
            new,
            method=init.method,
            route=route,
            aligned=aligned,
            share=init.wechsel_share,
            norm=norm,
            length=length,
            seed=seed,
        )
        origins += found
    return state, origins


def _letters(tokenizer: Any) -> Callable[[int], float]:
    """Letters that a base id spells: a byte of a letter counts as a part of it."""
    return lambda i: len(tokenizer.decode([i]).strip().strip("\ufffd")) or 1 / 3


def _aligned_blends(context: Context, init: Init, seed: int) -> tuple[dict[int, Any], Any]:
    """Blends of neighbours in the replay language by id, and how good the alignment is; none when the method does not
    ask or cannot."""
    from vocabgraft.embedding.initialise import ALIGNED
    from vocabgraft.embedding.vectors import train_vectors
    from vocabgraft.embedding.wechsel import align, omp_blends, wechsel_blends

    if init.method not in ALIGNED:
        return {}, None
    say = context.reporter.say
    expansion, folder = load_expansion(context)
    base, new = load_tokenizer(context.base_folder()), load_tokenizer(folder)
    say("training static vectors of both languages")
    vectors = {}
    for side, tokenizer in (("replay", base), ("target", new)):
        documents = encode(tokenizer, list(islice(texts(context, side, "train"), _VECTOR_TEXTS)))
        vectors[side] = train_vectors(documents, size=init.vector_size, min_count=init.min_count, seed=seed)
    pairs = [(p.source, p.target) for p in entries(context)]
    shared = set(vectors["replay"].ids) & set(vectors["target"].ids)
    same = _identical_words(base, shared) if init.identical_words else []
    alignment = align(
        [*pairs, *same],
        vectors["replay"],
        vectors["target"],
        lambda word: encode(base, [" " + word])[0],
        lambda word: encode(new, [" " + word])[0],
    )
    if alignment is None:
        say(f"dictionary covers too few words of this corpus ({len(pairs)} pairs): all rows by subword mean")
        return {}, {"pairs": 0, "note": "fewer covered pairs than dimensions; every row is a subword mean"}
    both, ids = (vectors["replay"], vectors["target"], alignment), expansion.ids
    if init.method == "omp":
        found = omp_blends(ids, *both, atoms=init.neighbours)
    else:
        found = wechsel_blends(ids, *both, neighbours=init.neighbours, temperature=init.temperature)
    return found, {
        "dictionary": len(pairs),
        "identical": len(same),
        "pairs": alignment.pairs,
        "fit": round(alignment.fit, 4),
        "held_out": alignment.held_out,
        "precision_at_1": None if alignment.precision is None else round(alignment.precision, 4),
        "rows": len(found),
    }


def _identical_words(tokenizer: Any, ids: set[int]) -> list[tuple[str, str]]:
    """Words that texts of both languages write alike (mg, COVID, MRI), as pairs."""
    words = {tokenizer.decode([i]).strip() for i in ids}
    return [(w, w) for w in sorted(words) if len(w) > 1 and w.isascii() and w.isalpha()]
