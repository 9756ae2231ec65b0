"""Training text as packed rows, as many as a token budget needs, in an order that only the seed decides."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vocabgraft.recipe import Recipe
from vocabgraft.recipe_sections import Rates
from vocabgraft.steps.context import Context
from vocabgraft.steps.data import shuffled_documents
from vocabgraft.steps.mixing import shares, tokens_of
from vocabgraft.steps.tokenizer import bos_of, load_expansion
from vocabgraft.tokenizer.measure import load_tokenizer

_ENCODED_TOGETHER = 64  # documents


def packed_corpus(context: Context, side: str, rows: int, seed: int) -> Any:
    """At least `rows` packed rows of one side's training text in the expanded tokenizer, or all there are.

    Documents come in an order fixed by (seed, id), and no more are encoded than the rows need.
    """
    return _packed(context, [d.text for d in shuffled_documents(context, side, seed)], rows)


def _packed(context: Context, texts: list[str], rows: int) -> Any:
    from vocabgraft.corpus.mix import pack_documents

    _, folder = load_expansion(context)
    tokenizer, (bos, _) = load_tokenizer(folder), bos_of(folder)
    window = context.recipe.training.window
    return pack_documents(_encoded(tokenizer, texts, rows * window), window, bos)


def _packed_parts(context: Context, side: str, rows: int, seed: int, mix: Mapping[str, float]) -> tuple[Any, Any]:
    """Packed rows of one side and where each source's begin, () where documents of all sources stand together."""
    from vocabgraft.corpus.mix import Part, joined

    found = shares(context.recipe, tokens_of(context.run, side), rows, mix)
    if found is None:
        return packed_corpus(context, side, rows, seed), ()
    texts: dict[str, list[str]] = {name: [] for name, share in found.items() if share}
    for document in shuffled_documents(context, side, seed):
        if document.source in texts:
            texts[document.source].append(document.text)
    packed, parts = [], []
    for name, some in texts.items():
        packed.append(_packed(context, some, math.ceil(rows * found[name]) + 1))
        parts.append(Part(name, len(packed[-1]), found[name]))
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
) -> Any:
    """Target and replay text in the given share for a budget of tokens; a pure function of (seed, step).

    tokens_per_step: None for the recipe's `training.tokens_per_step`, here and below. mix: as in a `[[stage]]`.
    """
    from vocabgraft.corpus.mix import Mixture

    context.reporter.say("packing text")
    together = rows_per_step(context.recipe, tokens_per_step)
    rows = steps_for(context.recipe, tokens, tokens_per_step) * together
    target, target_parts = _packed_parts(context, "target", rows, seed, mix or {})
    replay, replay_parts = _packed_parts(context, "replay", round(rows * replay_share) + 1, seed, mix or {})
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
