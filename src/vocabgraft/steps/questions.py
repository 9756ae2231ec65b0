"""The questions of a recipe: which are tuned on, which are asked, and under which terms."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vocabgraft.corpus.document import Tally
from vocabgraft.errors import DataError
from vocabgraft.evaluation.benchmarks import PREFIX, named
from vocabgraft.evaluation.questions import Question, read_questions, split_questions
from vocabgraft.recipe import Recipe
from vocabgraft.run import Licence

LEAKED = "holds a benchmark question"


def evaluated_questions(recipe: Recipe) -> list[Question]:
    """Every question that an evaluation will ask."""
    found: dict[str, Question] = {}
    for sources in (recipe.evaluate.target_questions, recipe.evaluate.replay_questions):
        for question in read_questions(sources, Tally()):
            found.setdefault(question.question, question)
    seen = tuned_texts(recipe)
    return [q for text, q in found.items() if text not in seen]


def tuned_texts(recipe: Recipe) -> set[str]:
    """The questions that tuning reads, by their text, whatever file they are in: no evaluation asks them."""
    tuned, _ = split_questions(read_questions(recipe.instruct.questions, Tally()), recipe.instruct.test_share)
    return {q.question for q in tuned}


def unseen_questions(recipe: Recipe, sources: Sequence[str], tally: Tally) -> list[Question]:
    """Questions that tuning did not read, told by their text, whatever file they are in."""
    seen = tuned_texts(recipe)
    questions = [q for q in read_questions(sources, tally) if q.question not in seen]
    if not questions:
        raise DataError(
            f"{', '.join(sources)}: tuning reads every question, none is left to evaluate on; "
            "raise instruct.test_share or give other questions"
        )
    return questions


def sampled(questions: Sequence[Question], most: int) -> list[Question]:
    """At most so many, picked by a hash of each, so that every set keeps its share; in their order."""
    ranks = [hashlib.sha256(f"{q.set} {q.id} {q.question}".encode()).digest() for q in questions]
    kept = set(sorted(range(len(questions)), key=ranks.__getitem__)[:most])
    return [q for n, q in enumerate(questions) if n in kept]


def not_commercial(recipe: Recipe) -> list[str]:
    """Tuning on a benchmark that forbids commercial use makes the model so too: only where the recipe says that."""
    if recipe.instruct.non_commercial:
        return []
    found = (named(s).benchmark for s in recipe.instruct.questions if _is_known_benchmark(s))
    return [
        f"instruct.questions: {b.name} is {b.license}; a model tuned on it may not be used commercially and has spent "
        "this benchmark. Take other questions, or say instruct.non_commercial = true"
        for b in found
        if b.non_commercial
    ]


def _is_known_benchmark(source: str) -> bool:
    try:
        return source.startswith(PREFIX) and named(source) is not None
    except DataError:
        return False  # said with the other problems


def question_licences(recipe: Recipe) -> list[Licence]:
    """Terms of the benchmarks that are asked or tuned on."""
    found = []
    for role, sources in (
        ("evaluation", (*recipe.evaluate.target_questions, *recipe.evaluate.replay_questions)),
        ("tuning", recipe.instruct.questions),
    ):
        for benchmark in (named(s).benchmark for s in sources if _is_known_benchmark(s)):
            found.append(Licence(benchmark.name, benchmark.license, benchmark.license_url, f"questions: {role}"))
    return found
