"""Training text as packed rows, as many as a token budget needs, in an order that only the seed decides."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from vocabgraft.errors import DataError
from vocabgraft.recipe import Recipe
from vocabgraft.recipe_sections import Rates
from vocabgraft.steps.context import Context
from vocabgraft.steps.data import Stretch, shuffled_stretches
from vocabgraft.steps.mixing import shares, tokens_of
from vocabgraft.steps.tokenizer import bos_of, load_expansion
from vocabgraft.tokenizer.measure import load_tokenizer

_ENCODED_TOGETHER = 64  # stretches
_BYTES_A_TOKEN = 16  # of a window, for a stretch: two and a half windows of Korean, four of English
_APART = 10  # one document in so many, where some are kept apart


def stretches(context: Context, side: str, seed: int) -> list[Stretch]:
    """One side's training text as stages read it."""
    return shuffled_stretches(context, side, seed, _BYTES_A_TOKEN * context.recipe.training.window)


def kept_apart(found: Sequence[Stretch]) -> tuple[list[Stretch], list[Stretch]]:
    """Stretches to train on, and those of other documents to judge by: every tenth of a source, or one of a few.

    Where each source is one document, the last tenth of the longest one.
    """
    documents: dict[str, dict[str, list[int]]] = {}
    for number, stretch in enumerate(found):
        documents.setdefault(stretch.source, {}).setdefault(stretch.document, []).append(number)
    chosen: set[int] = set()
    for names in documents.values():
        each = list(names.values())
        chosen.update(*(each[_APART - 1 :: _APART] or each[1:][-1:]))
    if not chosen:
        longest = max((numbers for names in documents.values() for numbers in names.values()), key=len, default=[])
        chosen.update(longest[-max(1, len(longest) // _APART) :])
    sides: tuple[list[Stretch], list[Stretch]] = ([], [])
    for number, stretch in enumerate(found):
        sides[number in chosen].append(stretch)
    return sides


def packed_corpus(context: Context, side: str, rows: int, seed: int) -> Any:
    """At least `rows` packed rows of one side's training text in the expanded tokenizer, or all there are.

    Stretches come in an order fixed by (seed, id, number), and no more are encoded than the rows need.
    """
    return _packed(context, stretches(context, side, seed), rows)


def _packed(context: Context, some: Sequence[Stretch], rows: int) -> Any:
    from vocabgraft.corpus.mix import pack_documents

    _, folder = load_expansion(context)
    tokenizer, (bos, _) = load_tokenizer(folder), bos_of(folder)
    window = context.recipe.training.window
    return pack_documents(_encoded(tokenizer, [s.text for s in some], rows * window), window, bos)


def _packed_parts(
    context: Context, side: str, rows: int, seed: int, mix: Mapping[str, float], apart: bool | None
) -> tuple[Any, Any]:
    """Packed rows of one side and where each source's begin, () where documents of all sources stand together.

    apart: only documents that are kept apart (True), or only the others (False).
    """
    from vocabgraft.corpus.mix import Part, joined

    found, there = shares(context.recipe, tokens_of(context.run, side), rows, mix), stretches(context, side, seed)
    if found is not None:
        there = [s for s in there if found.get(s.source)]
    if apart is not None:
        there = kept_apart(there)[apart]
        if not there:
            raise DataError(
                f"{side} text: one short document, and a stage over kept hidden states wants another to judge by; "
                "give more text, or leave epochs and sweep out"
            )
    if found is None:
        return _packed(context, there, rows), ()
    by_source: dict[str, list[Stretch]] = {name: [] for name in found}
    for stretch in there:
        by_source[stretch.source].append(stretch)
    # A source of one document has nothing apart; the others keep their shares among themselves.
    by_source = {name: some for name, some in by_source.items() if some}
    whole = sum(found[name] for name in by_source)
    packed, parts = [], []
    for name, some in by_source.items():
        share = found[name] / whole if apart else found[name]
        packed.append(_packed(context, some, math.ceil(rows * share) + 1))
        parts.append(Part(name, len(packed[-1]), share))
    return joined(*packed), tuple(parts)


def _encoded(tokenizer: Any, documents: list[str], enough: int) -> Iterator[list[int]]:
    total = 0
    for start in range(0, len(documents), _ENCODED_TOGETHER):
        chunk = documents[start : start + _ENCODED_TOGETHER]
        for encoding in tokenizer.encode_batch(chunk, add_special_tokens=False):
            yield encoding.ids
            total += len(encoding.ids)
            if total >= enough:
                return


def corpus_mixture(
    context: Context,
    replay_share: float,
    seed: int,
    tokens: int,
    tokens_per_step: int | None = None,
    mix: Mapping[str, float] | None = None,
    apart: bool | None = None,
) -> Any:
    """Target and replay text in the given share for a budget of tokens; a pure function of (seed, step).

    tokens_per_step: None for the recipe's `training.tokens_per_step`, here and below. mix: as in a `[[stage]]`.
    apart: as in `_packed_parts`.
    """
    from vocabgraft.corpus.mix import Mixture

    context.reporter.say("packing text")
    together = rows_per_step(context.recipe, tokens_per_step)
    rows = steps_for(context.recipe, tokens, tokens_per_step) * together
    target, target_parts = _packed_parts(context, "target", rows, seed, mix or {}, apart)
    replay, replay_parts = _packed_parts(context, "replay", round(rows * replay_share) + 1, seed, mix or {}, apart)
    return Mixture(target, replay, replay_share, seed, together, target_parts, replay_parts)


def steps_for(recipe: Recipe, tokens: int, tokens_per_step: int | None = None) -> int:
    """Optimiser steps of a token budget; at least one."""
    return max(1, round(tokens / (rows_per_step(recipe, tokens_per_step) * recipe.training.window)))


def schedule_of(recipe: Recipe, groups: Collection[str], rates: Rates, steps: int, *, retain: float = 0.0) -> Any:
    """What the loop is told: the groups and rates of a stage, and what `[training]` says for all."""
    from vocabgraft.training.loop import Schedule

    training = recipe.training
    return Schedule(
        groups=tuple(groups),
        steps=steps,
        lr_new=rates.new,
        lr_old=rates.old,
        lr_lora=rates.lora,
        warmup=training.warmup,
        weight_decay=training.weight_decay,
        clip=training.clip,
        row_epsilon=training.row_epsilon,
        low_rank=recipe.lora.rank,
        low_scale=recipe.lora.alpha / recipe.lora.rank,
        retain=retain,
        backend=training.loss,
    )


def rows_per_step(recipe: Recipe, tokens_per_step: int | None = None) -> int:
    """Packed rows of one optimiser step."""
    return max(1, (tokens_per_step or recipe.training.tokens_per_step) // recipe.training.window)
