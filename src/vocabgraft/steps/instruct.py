"""Phase 4: tune on questions and free-text pairs in the base's chat format, then merge everything learnt."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any
from unicodedata import normalize

from vocabgraft.corpus.document import Tally
from vocabgraft.errors import DataError
from vocabgraft.evaluation.leaks import LeakIndex
from vocabgraft.evaluation.questions import (
    answer_text,
    by_lot,
    prompt,
    read_instructions,
    read_questions,
    split_questions,
)
from vocabgraft.recipe import Recipe
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.embedding import adapter_spec, open_state, probe
from vocabgraft.steps.packing import packed_corpus, rows_per_step, schedule_of, steps_for
from vocabgraft.steps.privacy import PERSONAL, privacy_guard
from vocabgraft.steps.questions import LEAKED, evaluated_questions
from vocabgraft.steps.stages import run_training, state_before
from vocabgraft.steps.tokenizer import bos_of, load_expansion
from vocabgraft.tokenizer.measure import load_tokenizer

_SEED_OFFSET = 100  # apart from the stages' seeds


def instruct(context: Context) -> StepResult:
    """Tune with loss on answers only, beside some plain text; write the merged model as `model/`."""
    from vocabgraft.corpus.mix import Mixture
    from vocabgraft.deployment.merge import export_folder
    from vocabgraft.models.load import load_model
    from vocabgraft.training.graft import save_graft, tensor_ids

    recipe = context.recipe
    previous = state_before(context)
    examples, counts = _examples(context)
    graft = open_state(context, previous, with_adapters=True)
    mixture = Mixture(
        examples, _plain_text(context), recipe.instruct.replay_share, _seed(context), rows_per_step(recipe)
    )
    schedule = schedule_of(recipe, recipe.instruct.train, recipe.instruct.lr, steps_for(recipe, recipe.instruct.tokens))
    metrics = run_training(context, graft, mixture.batch, schedule)
    if not context.team.leads:
        return StepResult()
    save_graft(graft, context.out, previous, recipe.instruct.train)
    del graft
    expansion, tokenizer = load_expansion(context)
    context.reporter.say("merging rows and adapters into the base")
    shutil.rmtree(context.out / "model", ignore_errors=True)  # of a try that was stopped while it measured
    merged = export_folder(
        context.base_folder(),
        tokenizer,
        context.out,
        tensor_ids(expansion.ids),
        context.out / "model",
        scale=adapter_spec(context).scale,
        size=expansion.rows,
    )
    metrics["bits_per_byte"] = probe(context, load_model(context.out / "model", device=context.device()), tokenizer)
    return StepResult({"train": list(recipe.instruct.train), **counts, "merged": merged, **metrics})


def _seed(context: Context) -> int:
    return context.recipe.training.seed + _SEED_OFFSET


def _plain_text(context: Context) -> Any:
    """As many packed rows of both sides as the tuning can use, half and half."""
    from vocabgraft.corpus.mix import joined

    recipe = context.recipe
    rows = steps_for(recipe, recipe.instruct.tokens) * rows_per_step(recipe)
    half = round(rows * recipe.instruct.replay_share / 2) + 1
    return joined(*(packed_corpus(context, side, half, _seed(context)) for side in ("target", "replay")))


def _examples(context: Context) -> tuple[Any, dict[str, Any]]:
    from vocabgraft.corpus.mix import pack_examples
    from vocabgraft.training.chat import ChatFormat

    pairs, counts = tuning_pairs(context.recipe)
    _, folder = load_expansion(context)
    tokenizer, (_, bos) = load_tokenizer(folder), bos_of(folder)
    chat = ChatFormat(folder)
    rows = pack_examples((chat.example(tokenizer, bos, *pair) for pair in pairs), context.recipe.training.window)
    return rows, counts


def tuning_pairs(recipe: Recipe) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """What is asked and answered in tuning, and what was dropped: what an evaluation asks, and personal data."""
    spec, tally = recipe.instruct, Tally()
    training, test = split_questions(read_questions(spec.questions, tally), spec.test_share)
    if spec.answers == "by lot":
        training = [by_lot(q) for q in training]
    read = [(prompt(q), answer_text(q)) for q in training]
    read += [(i.instruction, i.response) for i in read_instructions(spec.instructions, tally)]
    leaks = LeakIndex(evaluated_questions(recipe))
    found = leaks.find_each(map("\n".join, read))
    unasked = [pair for pair, held in zip(read, found, strict=True) if not held]
    pairs, personal = _without_personal(recipe, unasked)
    if not pairs:
        raise DataError("instruct: no question or instruction is left to train on; lower instruct.test_share")
    ours = Counter({LEAKED: len(read) - len(unasked), PERSONAL: len(unasked) - len(pairs)})
    told = {"examples": len(pairs), "questions_kept_for_test": len(test), "dropped": dict(tally.dropped + ours)}
    return pairs, told | {"privacy": dict(sorted(personal.items()))}


def _without_personal(recipe: Recipe, pairs: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], Counter[str]]:
    guard, personal = privacy_guard(recipe.data.privacy, recipe.data.privacy_key), Counter[str]()
    kept = []
    for pair in pairs:
        (asked, in_asked), (answered, in_answer) = (guard(normalize("NFC", text)) for text in pair)
        personal.update(in_asked + in_answer)
        if asked is not None and answered is not None:
            kept.append((asked, answered))
    return kept, personal


def final_model(context: Context) -> Path:
    """The merged Hugging Face folder."""
    return context.run.path("41-instruct", "model")
