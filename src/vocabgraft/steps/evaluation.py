"""Phase 5: what was gained and what was kept, base and final model on the same items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocabgraft.corpus.document import Tally
from vocabgraft.durable import digest, write_json
from vocabgraft.errors import DataError
from vocabgraft.evaluation.questions import LETTERS, Question, clusters_of
from vocabgraft.evaluation.statistics import paired_change
from vocabgraft.evaluation.verdicts import Comparison, Paired, compare
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.data import SIDES, probe_pairs
from vocabgraft.steps.instruct import final_model
from vocabgraft.steps.questions import LEAKED, sampled, unseen_questions
from vocabgraft.steps.tokenizer import bos_of
from vocabgraft.tokenizer.measure import load_tokenizer

if TYPE_CHECKING:
    from vocabgraft.evaluation.bits import Bits
    from vocabgraft.evaluation.choices import Answer, Robustness
    from vocabgraft.evaluation.written import Rates, Written


def target(context: Context) -> StepResult:
    """The target language: questions kept from training, held-out text."""
    return _evaluate(context, "target", context.recipe.evaluate.target_questions)


def retention(context: Context) -> StepResult:
    """The base language: nothing of these questions was trained on."""
    return _evaluate(context, "replay", context.recipe.evaluate.replay_questions)


@dataclass(frozen=True)
class Scores:
    """What one model did."""

    answers: list[Answer]
    robustness: Robustness
    written: list[Written]
    rates: Rates
    bits: Bits


def _evaluate(context: Context, side: str, sources: Sequence[str]) -> StepResult:
    evaluate, tally = context.recipe.evaluate, Tally()
    questions = sampled(unseen_questions(context.recipe, sources, tally), evaluate.max_questions)
    texts = probe_pairs(context, side, evaluate.final_bytes, evaluate.context_bytes)
    folders = {"base": context.base_folder(), "final": final_model(context)}
    scores = {name: _score(context, side, folder, questions, texts, name) for name, folder in folders.items()}
    items = {n: [vars(a) for a in s.answers] for n, s in scores.items()}
    asked = [{"id": q.id, "set": q.set, "cluster": q.cluster, "options": len(q.options)} for q in questions]
    write_json(context.out / "items.json", {"questions": asked, **items})
    windows = {n: list(s.bits.bits) for n, s in scores.items()}
    write_json(context.out / "windows.json", {"sha256": digest(texts), "bytes": scores["base"].bits.bytes, **windows})
    if evaluate.written:
        write_json(context.out / "written.json", {n: [vars(w) for w in s.written] for n, s in scores.items()})
    pool, sets = compared(questions, scores, evaluate.margin / 100 if side == "replay" else None)
    for found in (*sets, pool):
        context.reporter.say(f"{found.name}: {found.sentence}" if found.name else found.sentence)
    choices = _told(pool) | {"sets": {found.name: _told(found) for found in sets}}
    choices["letters"] = {n: _letters(s.answers) for n, s in scores.items()}
    choices["rotations"] = {n: vars(s.robustness) for n, s in scores.items()}
    return StepResult(
        {
            "bits_per_byte": _bits_change(scores["base"].bits, scores["final"].bits),
            "tokens": {n: s.bits.tokens for n, s in scores.items()},
            "choices": choices,
            "written": {n: vars(s.rates) for n, s in scores.items()} if evaluate.written else {},
            "written_form": evaluate.written_form if side == "target" else "chat",
            "questions": {**tally.as_dict(), "asked": len(questions)},
            "leak_gate": _receipt(context),
        }
    )


def compared(
    questions: list[Question], scores: dict[str, Scores], margin: float | None
) -> tuple[Comparison, list[Comparison]]:
    """All questions together, for which retention is claimed, and each set of several, tested together."""
    before, after = ([a.right for a in scores[n].answers] for n in ("base", "final"))

    def paired(name: str, chosen: list[int]) -> Paired:
        asked = [questions[i] for i in chosen]
        chance = sum(1 / len(q.options) for q in asked) / len(asked)
        return Paired(name, [before[i] for i in chosen], [after[i] for i in chosen], chance, clusters_of(asked))

    by_set: dict[str, list[int]] = {}
    for i, question in enumerate(questions):
        by_set.setdefault(question.set, []).append(i)
    (pool,) = compare([paired("", list(range(len(questions))))], margin=margin)
    sets = compare([paired(name, chosen) for name, chosen in by_set.items()]) if len(by_set) > 1 else []
    return pool, sets


def _bits_change(base: Bits, final: Bits) -> dict[str, float]:
    change = paired_change(base.bits, final.bits, base.bytes)
    return {
        "base": round(base.per_byte, 5),
        "final": round(final.per_byte, 5),
        "change": round(change.relative, 5),
        "change_low": round(change.low, 5),
        "change_high": round(change.high, 5),
        "bytes": sum(base.bytes),
    }


def _receipt(context: Context) -> dict[str, Any]:
    """What was looked at for questions of the evaluation before it was trained on, and how much of it held one."""
    prepared, tuned = (context.run.manifest(key) for key in ("04-preprocess", "41-instruct"))
    if prepared is None or tuned is None:
        raise DataError("04-preprocess and 41-instruct have no manifests; run them first")
    documents = {side: prepared.metrics[side]["dropped"].get(LEAKED, 0) for side in SIDES}
    return {
        **prepared.metrics["leak_gate"],
        "documents_dropped": documents,
        "examples_dropped": tuned.metrics["dropped"].get(LEAKED, 0),
    }


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


def _score(
    context: Context, side: str, folder: Path, questions: list[Question], texts: list[tuple[str, str]], name: str
) -> Scores:
    """texts: what stands before each window, and the window."""
    from vocabgraft.evaluation.bits import bits_per_byte
    from vocabgraft.evaluation.choices import answer_questions, robustness
    from vocabgraft.evaluation.written import chat_form, lm_eval_form, rates, write_answers
    from vocabgraft.models.load import load_model
    from vocabgraft.training.chat import ChatFormat

    evaluate = context.recipe.evaluate
    model, tokenizer, (bos_id, bos) = (
        load_model(folder, device=context.device()),
        load_tokenizer(folder),
        bos_of(folder),
    )
    chat = ChatFormat(folder)
    asked = sum(min(evaluate.rotations, len(q.options)) for q in questions)
    with context.reporter.bar(f"{name}: questions", asked) as advance:
        answers = answer_questions(
            model, tokenizer, chat, questions, bos=bos, rotations=evaluate.rotations, on_question=advance
        )
    chosen = sampled(questions, evaluate.written)
    script = context.recipe.data.script if side == "target" else "Latin"
    as_task = side == "target" and evaluate.written_form != "chat"
    form = lm_eval_form(tokenizer, bos_id, evaluate.written_form) if as_task else chat_form(tokenizer, chat, bos)
    with context.reporter.bar(f"{name}: written answers", len(chosen)) as advance:
        written = write_answers(
            model, tokenizer, form, chosen, script=script, most=evaluate.answer_tokens, on_question=advance
        )
    with context.reporter.bar(f"{name}: bits per byte", len(texts)) as advance:
        before, windows = zip(*texts, strict=True)
        bits = bits_per_byte(model, tokenizer, windows, bos=bos_id, before=before, on_window=advance)
    return Scores(answers, robustness(questions, answers), written, rates(written), bits)


def _letters(answers: Sequence[Answer]) -> dict[str, int]:
    """How often each letter was chosen: a model that always says the same one shows here."""
    counts = Counter(LETTERS[answer.chosen] for answer in answers)
    return dict(sorted(counts.items()))
