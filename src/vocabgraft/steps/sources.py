"""The sources of a recipe that are known data sets: what their terms allow, and what they add to the bill."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from vocabgraft.corpus.source import HubName, locate
from vocabgraft.errors import DataError
from vocabgraft.evaluation.benchmarks import catalogue as benchmarks
from vocabgraft.recipe import Recipe
from vocabgraft.steps.collect import SIDES

_WHY = {
    "evaluation only": "is for evaluation: a model that has read it can no longer be measured on it",
    "non-commercial": "is {license}: a model trained on it may not be used commercially",
    "unknown terms": "has no known terms ({license}): whether a model trained on it may be passed on is open",
}


def recipe_sources(recipe: Recipe) -> list[dict[str, Any]]:
    """What the recipe reads as text, in its order: source, side, licence, terms, and why it is refused, if it is."""
    rows = []
    for side in SIDES:
        for source in getattr(recipe.data, side):
            row = {"source": source, "side": side, "license": recipe.data.license, "license_url": "", "terms": ""}
            try:
                located = locate(source)
            except DataError:
                located = None
            if located is not None:
                row["license"] = located.license or recipe.data.license
            if located is not None and located.known is not None:
                row |= {"license_url": located.known.license_url, "terms": located.known.terms}
            rows.append({**row, "refused": list(_refused(side, source, recipe.data))})
    return rows


def refused_sources(recipe: Recipe) -> list[str]:
    """Say which sources of training text may not be that, unless `data.accept` says so: each with what to do.

    Examples of a topic are read, not trained on: they only have to be there.
    """
    accept = recipe.data.accept
    found = (_refused(side, source, accept) for side in SIDES for source in getattr(recipe.data, side))
    gone = (_missing(source) for source in recipe.data.select.examples)
    return [problem for problems in (*found, *gone) for problem in problems]


def _missing(source: str) -> Iterator[str]:
    try:
        locate(source)
    except DataError as e:
        yield str(e)


def _refused(side: str, source: str, accept: Collection[str]) -> Iterator[str]:
    try:
        located = locate(source)
    except DataError:
        return  # said with the other problems
    if located.hub is not None and (asked := _benchmark_of(located.hub)):
        yield (
            f"data.{side}: {source} is what benchmark:{asked} asks ({located.hub.dataset}, {located.hub.split}); "
            "text to train on cannot come from there. Take another split"
        )
        return
    known = located.known
    for kind, why in _WHY.items() if known else ():
        if kind in known.terms and kind not in accept:
            yield (
                f"data.{side}: source {known.name} {why.format(license=known.license)}. Take another source, or say "
                f'data.accept = ["{kind}"], and the bill and the card will say it too ({known.license_url})'
            )


def _benchmark_of(hub: HubName) -> str:
    """The benchmark whose questions this split of a data set holds, or ''."""
    for benchmark in benchmarks().values():
        same = (benchmark.dataset.casefold(), benchmark.split) == (hub.dataset.casefold(), hub.split)
        part = not benchmark.configs or hub.config is None or hub.config in benchmark.configs
        if benchmark.kind == "questions" and same and part:
            return benchmark.name
    return ""


def license_url(source: str) -> str:
    """Where the terms of a source stand, where it is a known data set."""
    try:
        known = locate(source).known
    except DataError:
        return ""
    return known.license_url if known else ""
