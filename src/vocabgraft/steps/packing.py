"""Training text as packed rows, as many as a token budget needs, in an order that only the seed decides."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from vocabgraft.recipe import Recipe
from vocabgraft.recipe_sections import Rates
from vocabgraft.steps.context import Context
from vocabgraft.steps.data import shuffled_texts
from vocabgraft.steps.tokenizer import bos_of, load_expansion
from vocabgraft.tokenizer.measure import load_tokenizer

_ENCODED_TOGETHER = 64  # documents


def packed_corpus(context: Context, side: str, rows: int, seed: int) -> Any:
    """At least `rows` packed rows of one side's training text in the expanded tokenizer, or all there are.

    Documents come in an order fixed by (seed, id), and no more are encoded than the rows need.
    """
    from vocabgraft.corpus.mix import pack_documents

    _, folder = load_expansion(context)
    tokenizer, (bos, _) = load_tokenizer(folder), bos_of(folder)
    window = context.recipe.training.window
    return pack_documents(_encoded(tokenizer, shuffled_texts(context, side, seed), rows * window), window, bos)


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
    context: Context, replay_share: float, seed: int, tokens: int, tokens_per_step: int | None = None
) -> Any:
    """Target and replay text in the given share for a budget of tokens; a pure function of (seed, step).

    tokens_per_step: None for the recipe's `training.tokens_per_step`, here and below.
    """
    from vocabgraft.corpus.mix import Mixture

    context.reporter.say("packing text")
    together = rows_per_step(context.recipe, tokens_per_step)
    rows = steps_for(context.recipe, tokens, tokens_per_step) * together
    target = packed_corpus(context, "target", rows, seed)
    replay = packed_corpus(context, "replay", round(rows * replay_share) + 1, seed)
    return Mixture(target, replay, replay_share, seed, together)


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
