"""Which source is read how often: tokens of each from word counts, shares of a stage, and what came of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vocabgraft.corpus.document import Document, read_documents
from vocabgraft.corpus.shares import tempered
from vocabgraft.errors import DataError
from vocabgraft.recipe import Recipe
from vocabgraft.recipe_sections import Stage
from vocabgraft.run import Run
from vocabgraft.steps.collect import SIDES
from vocabgraft.steps.context import Context

EVERY = "all sources"
FILE = "sources.json"
STEP = "13-expand-tokenizer"
MOST_SOURCES = 100  # of a side: more are addresses of pages, not sources
_COUNTED_TOGETHER = 32_000_000  # letters
Sizes = dict[str, dict[str, int]]


def source_sizes(context: Context, folder: Path) -> dict[str, Sizes]:
    """Documents, bytes and tokens of each source's training text by side, from word counts: nothing is encoded.

    folder: the expanded tokenizer. A side of more than 100 sources is counted as one, 'all sources'.
    """
    found = {}
    for side in SIDES:
        path = context.run.path("04-preprocess", f"{side}.train.jsonl")
        with context.reporter.bar(f"counting {side}", path.stat().st_size) as advance:
            found[side] = _sizes(read_documents(path), folder, context.machine.threads, advance)
    return found


def _sizes(documents: Iterator[Document], folder: Path, threads: int, advance: Callable[[int], None]) -> Sizes:
    from vocabgraft.tokenizer.boundary import word_rule
    from vocabgraft.tokenizer.count import WordCounts, count_words, merged, token_counts
    from vocabgraft.tokenizer.measure import load_tokenizer

    tokenizer = load_tokenizer(folder)
    rule = word_rule(tokenizer)
    held: dict[str, list[str]] = defaultdict(list)
    counts: dict[str, WordCounts] = {}
    sizes: Sizes = defaultdict(lambda: {"documents": 0, "bytes": 0})
    letters = 0

    def count() -> None:
        for name, texts in held.items():
            found = count_words(texts, rule, threads=threads)
            counts[name] = merged([counts[name], found]) if name in counts else found
        held.clear()

    for document in documents:
        name, size = document.source, len(document.text.encode())
        sizes[name]["documents"] += 1
        sizes[name]["bytes"] += size
        held[name].append(document.text)
        letters += len(document.text)
        if letters > _COUNTED_TOGETHER:
            count()
            letters = 0
        advance(size)
    count()
    if len(sizes) > MOST_SOURCES:
        whole = {key: sum(size[key] for size in sizes.values()) for key in ("documents", "bytes")}
        sizes, counts = {EVERY: whole}, {EVERY: merged(list(counts.values()))}
    return {
        name: size | {"tokens": int(token_counts(tokenizer, counts[name]).sum())}
        for name, size in sorted(sizes.items())
    }


def tokens_of(run: Run, side: str) -> dict[str, int]:
    """Tokens of each source's training text, as 13-expand-tokenizer counted them."""
    sizes = json.loads(run.path(STEP, FILE).read_text("utf-8"))[side]
    return {name: size["tokens"] for name, size in sizes.items()}


def shares(recipe: Recipe, tokens: Mapping[str, int], rows: int, mix: Mapping[str, float]) -> dict[str, float] | None:
    """Share of each source in so many rows of a side; None where documents come as they are: no mix names one of
    them, and the temperature is 1 or there is one source."""
    given = {name: share for name, share in mix.items() if name in tokens}
    temperature, max_epochs = recipe.data.temperature, recipe.data.max_epochs
    if not given and (temperature == 1 or len(tokens) == 1):
        if temperature != 1 and EVERY in tokens:
            raise DataError(
                f"data.temperature: a side has more than {MOST_SOURCES} sources; give its rows fewer names in their "
                "field 'source', or leave the temperature at 1"
            )
        return None
    most = rows * (recipe.training.window - 1)  # a row holds BOS at least once
    return tempered(tokens, temperature, budget=most, max_epochs=max_epochs, given=given)


def check_mix(context: Context) -> None:
    """Raise DataError with all that is wrong with the mixes of all stages: the first stage tells of the last."""
    problems = []
    sides = {side: tokens_of(context.run, side) for side in SIDES}
    # Of the run's recipe, not of what this step declares: it is only looked at, and changes no result of this step.
    for number, stage in enumerate(context.run.recipe.stage, start=1):
        unknown = [name for name in stage.mix if not any(name in tokens for tokens in sides.values())]
        problems += [f"stage {number}, mix: no source {name!r}" for name in unknown]
        for side, tokens in sides.items():
            try:
                tempered(tokens, 1.0, given={name: share for name, share in stage.mix.items() if name in tokens})
            except DataError as e:
                problems.append(f"stage {number}, mix, {side}: {str(e).partition('. There are ')[0]}")
    if problems:
        there = "; ".join(f"{side}: {', '.join(map(repr, sorted(tokens)))}" for side, tokens in sides.items())
        raise DataError(
            f"{len(problems)} shares of sources cannot be:\n  " + "\n  ".join(problems) + f"\n  there are {there}"
        )


def told(context: Context, mixture: Any, steps: int) -> dict[str, Any]:
    """What so many steps of a mixture read, by side and source: rows, share of the side's rows, epochs of its text."""
    from vocabgraft.corpus.mix import NO_TARGET
    from vocabgraft.corpus.shares import turn

    found: dict[str, Any] = {}
    sides = ((mixture.target, mixture.target_parts), (mixture.replay, mixture.replay_parts))
    for side, rows, (packed, parts) in zip(SIDES, mixture.drawn(steps), sides, strict=True):
        sizes, start = tokens_of(context.run, side), 0
        if not parts:
            learned = int((packed.targets != NO_TARGET).sum()) / len(packed)
            found[side] = {EVERY: _line(rows, rows, learned, sum(sizes.values()))}
            continue
        drawn = [turn([part.share for part in parts], n)[0] for n in range(rows)]
        found[side] = {}
        for which, part in enumerate(parts):
            targets = packed.targets[start : start + part.rows]
            learned = int((targets != NO_TARGET).sum()) / part.rows
            found[side][part.name] = _line(drawn.count(which), rows, learned, sizes[part.name])
            start += part.rows
    return found


def _line(rows: int, of: int, tokens_a_row: float, tokens: int) -> dict[str, float]:
    return {
        "rows": rows,
        "share": round(rows / of, 6) if of else 0.0,
        "epochs": round(rows * tokens_a_row / tokens, 4) if tokens else 0.0,
    }


def planned(recipe: Recipe, run: Run) -> list[dict[str, Any]]:
    """What each stage will read of each source, from the word counts of step 13: share, tokens, epochs. No counts, no
    rows."""
    from vocabgraft.steps.packing import rows_per_step, steps_for

    if not run.path(STEP, FILE).is_file():
        return []
    rows = []
    for number, stage in enumerate(recipe.stage, start=1):
        every = steps_for(recipe, stage.tokens) * rows_per_step(recipe)
        replay = int(every * stage.replay_share)
        for side, drawn in zip(SIDES, (every - replay, replay), strict=True):
            rows += _planned(recipe, stage, number, side, drawn, tokens_of(run, side))
    return rows


def _planned(
    recipe: Recipe, stage: Stage, number: int, side: str, drawn: int, tokens: dict[str, int]
) -> list[dict[str, Any]]:
    whole, read = sum(tokens.values()), drawn * (recipe.training.window - 1)
    parts = shares(recipe, tokens, drawn, stage.mix) or {name: n / whole for name, n in tokens.items() if whole}
    return [
        {
            "stage": number,
            "side": side,
            "source": name,
            "share": round(share, 6),
            "tokens": round(read * share),
            "epochs": round(read * share / tokens[name], 3),
        }
        for name, share in parts.items()
        if share and read
    ]


def plan_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The same for people: a line for each stage and side, the largest shares first."""
    lines: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        lines[row["stage"], row["side"]].append(row)
    told = []
    for (number, side), some in lines.items():
        some = sorted(some, key=lambda row: -row["share"])
        parts = [f"{r['source']} {r['share']:.0%} ({r['tokens']:,} tokens, {r['epochs']:.3g} epochs)" for r in some[:5]]
        parts += [f"{len(some) - 5} more"] if len(some) > 5 else []
        told.append(f"stage {number}, {side}: {', '.join(parts)}")
    return told
