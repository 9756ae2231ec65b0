"""Phase 5: what was gained and what was kept, base and final model on the same items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vocabgraft.corpus.document import Tally
from vocabgraft.durable import write_json
from vocabgraft.errors import DataError
from vocabgraft.evaluation.questions import Question, clusters_of, read_questions, split_questions
from vocabgraft.evaluation.statistics import paired_change
from vocabgraft.evaluation.verdicts import Comparison, Paired, compare
from vocabgraft.recipe import Recipe
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.data import probe_windows
from vocabgraft.steps.instruct import final_model
from vocabgraft.steps.tokenizer import bos_of
from vocabgraft.tokenizer.measure import load_tokenizer


def target(context: Context) -> StepResult:
    """The target language: questions kept from training, held-out text."""
    return _evaluate(context, "target", context.recipe.evaluate.target_questions)


def retention(context: Context) -> StepResult:
    """The base language: nothing of these questions was trained on."""
    return _evaluate(context, "replay", context.recipe.evaluate.replay_questions)


def unseen_questions(recipe: Recipe, sources: Sequence[str], tally: Tally) -> list[Question]:
    """Questions that tuning did not read, told by their text, whatever file they are in."""
    tuned, _ = split_questions(read_questions(recipe.instruct.questions, Tally()), recipe.instruct.test_share)
    seen = {q.question for q in tuned}
    questions = [q for q in read_questions(sources, tally) if q.question not in seen]
    if not questions:
        raise DataError(
            f"{', '.join(sources)}: tuning reads every question, none is left to evaluate on; "
            "raise instruct.test_share or give other questions"
        )
    return questions


def _evaluate(context: Context, side: str, sources: Sequence[str]) -> StepResult:
    evaluate, tally = context.recipe.evaluate, Tally()
    questions = unseen_questions(context.recipe, sources, tally)[: evaluate.max_questions]
    texts = probe_windows(context, side, evaluate.final_bytes)
    base = _score(context, context.base_folder(), questions, texts, "base")
    final = _score(context, final_model(context), questions, texts, "final")
    write_json(context.out / "items.json", {"base": base["items"], "final": final["items"]})
    change = paired_change(base["bits"].bits, final["bits"].bits, base["bits"].bytes)
    right = [[i["right"] for i in found["items"]] for found in (base, final)]
    chance = sum(1 / len(q.options) for q in questions) / len(questions)
    margin = evaluate.margin / 100 if side == "replay" else None
    (found,) = compare([Paired(side, right[0], right[1], chance, clusters_of(questions))], margin=margin)
    context.reporter.say(found.sentence)
    choices = _told(found)
    choices["letters"] = {n: _letters(f["items"]) for n, f in (("base", base), ("final", final))}
    choices["rotations"] = {n: vars(f["robustness"]) for n, f in (("base", base), ("final", final))}
    return StepResult(
        {
            "bits_per_byte": {
                "base": round(base["bits"].per_byte, 5),
                "final": round(final["bits"].per_byte, 5),
                "change": round(change.relative, 5),
                "change_low": round(change.low, 5),
                "change_high": round(change.high, 5),
                "bytes": sum(base["bits"].bytes),
            },
            "tokens": {"base": base["bits"].tokens, "final": final["bits"].tokens},
            "choices": choices,
            "questions": {**tally.as_dict(), "asked": len(questions)},
        }
    )


def _told(found: Comparison) -> dict[str, Any]:
    """A comparison as the ledger keeps it."""
    return {
        "base": vars(found.before),
        "final": vars(found.after),
        "chance": round(found.chance, 4),
        "verdict": found.sentence,
        "difference": vars(found.difference),
        "p": found.p,
        "detectable": round(found.detectable, 4),
        "at_chance": found.at_chance,
        "retention": found.retention,
    }


def _score(context: Context, folder: Path, questions: list[Question], texts: list[str], name: str) -> dict[str, Any]:
    from vocabgraft.evaluation.bits import bits_per_byte
    from vocabgraft.evaluation.choices import answer_questions, robustness
    from vocabgraft.models.load import load_model
    from vocabgraft.training.chat import ChatFormat

    model, tokenizer, (bos_id, bos) = (
        load_model(folder, device=context.device()),
        load_tokenizer(folder),
        bos_of(folder),
    )
    orders = context.recipe.evaluate.rotations
    asked = sum(min(orders, len(q.options)) for q in questions)
    with context.reporter.bar(f"{name}: questions", asked) as advance:
        answers = answer_questions(
            model, tokenizer, ChatFormat(folder), questions, bos=bos, rotations=orders, on_question=advance
        )
    with context.reporter.bar(f"{name}: bits per byte", len(texts)) as advance:
        bits = bits_per_byte(model, tokenizer, texts, bos=bos_id, on_window=advance)
    return {"items": [vars(a) for a in answers], "bits": bits, "robustness": robustness(questions, answers)}


def _letters(items: list[dict[str, Any]]) -> dict[str, int]:
    """How often each letter was chosen: a model that always says the same one shows here."""
    counts: dict[str, int] = {}
    for item in items:
        letter = "ABCDEFGHIJ"[item["chosen"]]
        counts[letter] = counts.get(letter, 0) + 1
    return dict(sorted(counts.items()))
