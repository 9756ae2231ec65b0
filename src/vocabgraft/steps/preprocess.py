"""04-preprocess: what is left of each shard, put together: no text twice, none on both sides of a measurement.

Of texts that are the same or nearly so one stays, over both sides and all files: a held-out one before one to train on,
the target's before the replay's. What is alike on both sides has the target's script, which the target asks for, so it
is in the replay by mistake; and replay text is easier to come by. Among the rest the first stays of texts that are the
same, and the one whose hash is least of those nearly so. Numbers alone are added up and compared, in source order, so
the result is the same bytes whatever the number of workers and shards.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vocabgraft.corpus.dedup import repeated
from vocabgraft.corpus.document import Document, Tally
from vocabgraft.corpus.near_duplicates import PERMUTATIONS, alike
from vocabgraft.durable import sha256_file, write_text
from vocabgraft.errors import DataError, ProofError
from vocabgraft.evaluation.questions import Question, read_questions
from vocabgraft.scale.engines import bring_about
from vocabgraft.scale.tasks import Stretch, Task, sweep
from vocabgraft.steps.collect import SIDES
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.prepare import LINES, REVISION, Prepared, key_check, leak_index
from vocabgraft.steps.selection import learn

NEAR_DUPLICATE = "near duplicate"
Mask = np.ndarray


def preprocess(context: Context) -> StepResult:
    """Clean, take personal data out, split, drop, deduplicate, keep benchmark items out, hold out by hash."""
    asked = Tally()
    evaluate, instruct = context.recipe.evaluate, context.recipe.instruct
    questions = read_questions(
        sorted({*evaluate.target_questions, *evaluate.replay_questions, *instruct.questions}), asked
    )
    asked_path = _write_questions(context.shards / "questions.json", questions)
    too_short = len(leak_index(asked_path.path, asked_path.sha256).unknown)
    target, topic_path = context.run.path("02-collect", "target.jsonl"), context.out / "topic.safetensors"
    selection = learn(context.recipe.data, target, topic_path)
    topic = [Stretch(topic_path, sha256=sha256_file(topic_path))] if selection else []
    metrics: dict[str, Any] = {
        "questions": asked.as_dict(),
        "leak_gate": {"items": len(questions), "too_short": too_short},
        "selection": selection,
    }
    tasks = {side: list(_tasks(context, side, asked_path, topic)) for side in SIDES}
    every = [task for side in SIDES for task in tasks[side]]
    with context.reporter.bar("cleaning", sum(t.inputs[0].bytes for t in every)) as advance:
        outcomes = bring_about(every, context.engine, lambda task: advance(task.inputs[0].bytes))
    if wrong := next((o for o in outcomes if not isinstance(o, dict)), None):
        raise wrong
    shards = [Prepared(t.out, o["tally"]) for t, o in zip(every, outcomes, strict=True)]
    of_side = {"target": shards[: len(tasks["target"])], "replay": shards[len(tasks["target"]) :]}
    corpus = Corpus(of_side, context.recipe.data.near_duplicates)
    for side in SIDES:
        _check_read(context, side, of_side[side])
        metrics[side] = corpus.write(side, context.out)
    sweep(context.shards, {asked_path.path, *(t.out for t in every)})
    return StepResult(metrics)


def _write_questions(path: Path, questions: Sequence[Question]) -> Stretch:
    write_text(path, json.dumps([asdict(q) for q in questions], ensure_ascii=False))
    return Stretch(path, sha256=sha256_file(path))


def _tasks(context: Context, side: str, asked: Stretch, topic: list[Stretch]) -> Iterator[Task]:
    data = context.recipe.data
    settings = {
        "script": data.script if side == "target" else None,
        "min_script_share": data.min_script_share,
        "min_chars": data.min_chars,
        "max_chars": data.max_chars,
        "held_out": data.held_out,
        "near_duplicates": data.near_duplicates,
        "privacy": data.privacy,
        "privacy_key": data.privacy_key,
        "key_check": key_check(data.privacy, data.privacy_key),
        "quality": data.quality if side == "target" else "plain",
    }
    path, start = context.run.path("02-collect", f"{side}.jsonl"), 0
    beside = (asked, *(topic if side == "target" else ()))
    for shard in context.read_json("02-collect", f"{side}.shards.json"):
        piece = Stretch(path, start, shard["bytes"], shard["sha256"])
        start += shard["bytes"]
        out = context.shards / f"{side}-{shard['sha256'][:24]}"
        yield Task("vocabgraft.steps.prepare:prepare", REVISION, settings, (piece, *beside), out)


def _check_read(context: Context, side: str, shards: Sequence[Prepared]) -> None:
    wanted = sum(s["documents"] for s in context.read_json("02-collect", f"{side}.shards.json"))
    if (found := sum(s.tally["documents"] for s in shards)) != wanted:
        raise ProofError(f"data.{side}: 02-collect wrote {wanted} documents, {found} were read; please report this bug")


class Corpus:
    """All shards of both sides, in source order, and which of their parts stay."""

    def __init__(self, shards: dict[str, list[Prepared]], threshold: float) -> None:
        self._shards = shards
        self._every = [s for side in SIDES for s in shards[side]]
        self._starts = np.cumsum([0, *map(len, self._every)])
        self._held = self._fact("held").astype(bool)
        replay = np.arange(len(self._held)) >= sum(map(len, shards["target"]))
        first = replay + 2 * ~self._held  # held out before training, target before replay
        self._same = repeated(self._fact("digests", 2), first)
        self._near = self._nearly(first, threshold) if threshold else {}
        self.kept = ~self._same
        """Which parts stay, in source order."""
        self.kept[list(self._near)] = False

    def write(self, side: str, out: Path) -> dict[str, Any]:
        """Write train and held-out text of a side and account for every part of it."""
        offset, tally, personal = (
            self._starts[0 if side == "target" else len(self._shards["target"])],
            Tally(),
            Counter(),
        )
        makeup = _Makeup()
        names = {split: out / f"{side}.{split}.jsonl" for split in ("train", "held")}
        partial = {split: path.with_name(path.name + ".partial") for split, path in names.items()}
        with partial["train"].open("wb") as train, partial["held"].open("wb") as held:
            for shard in self._shards[side]:
                tally.add(Tally.from_dict(shard.tally["tally"]))
                personal.update(shard.tally["privacy"])
                self._write(shard, int(offset), tally, train, held)
                places = slice(offset, offset := offset + len(shard))
                makeup.add(shard, self.kept[places], self._held[places])
        tally.check()
        if tally.kept != makeup.documents + makeup.held_out_documents:
            raise ProofError(f"data.{side}: {tally.kept} parts were kept, others were written; please report this bug")
        _check_not_empty(side, makeup, tally)
        for split, path in names.items():
            partial[split].replace(path)
        return {
            **makeup.told(),
            "read": tally.read,
            "dropped": dict(sorted(tally.dropped.items())),
            "examples": dict(sorted(tally.examples.items())),
            "near_duplicates": self._example(side),
            "privacy": dict(sorted(personal.items())),
        }

    def _write(self, shard: Prepared, offset: int, tally: Tally, train: BinaryIO, held: BinaryIO) -> None:
        with (shard.folder / LINES).open("rb") as lines:
            for n, line in enumerate(lines):
                if self._same[offset + n]:
                    tally.drop_kept("duplicate", self._id(line))
                elif offset + n in self._near:
                    tally.drop_kept(NEAR_DUPLICATE, self._id(line))
                else:
                    (held if self._held[offset + n] else train).write(line)

    def _nearly(self, first: np.ndarray, threshold: float) -> dict[int, int]:
        """Place of each text that is left out for one nearly the same, with the place of that."""
        orders = self._fact("orders", 2)
        by_rank = np.lexsort((orders[:, 1], orders[:, 0], first))
        del orders
        rank = np.empty(len(first), np.int64)
        rank[by_rank] = np.arange(len(first))
        bands = max((s.tally["bands"] for s in self._every), default=0)
        found = alike(
            (self._band(n, rank) for n in range(bands)),
            lambda ranks: self._marks(by_rank[ranks]),
            lambda n: self._document(int(by_rank[n])).text,
            threshold,
        )
        return dict(sorted((int(by_rank[one]), int(by_rank[other])) for one, other in found.items()))

    def _band(self, number: int, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keys of one band, and the ranks of their texts, without texts that are left out already."""
        known = self._joined([s.fact("known") + start for s, start in zip(self._every, self._starts, strict=False)])
        keys = self._joined([s.fact(f"band.{number}") for s in self._every])
        new = ~self._same[known.astype(np.int64)]
        return keys[new], rank[known[new]]

    def _marks(self, places: np.ndarray) -> np.ndarray:
        """Marks of the texts at these places, (N, PERMUTATIONS)."""
        found = np.empty((len(places), PERMUTATIONS), np.uint8)
        for shard, start in zip(self._every, self._starts, strict=False):
            mine = np.flatnonzero((places >= start) & (places < start + len(shard)))
            if len(mine):
                found[mine] = shard.fact("marks")[np.searchsorted(shard.fact("known"), places[mine] - start)]
        return found

    def _fact(self, name: str, columns: int = 0) -> np.ndarray:
        """One fact of all parts, in source order."""
        found = [s.fact(name) for s in self._every]
        return np.concatenate(found) if found else np.zeros((0, columns) if columns else 0, np.uint64)

    @staticmethod
    def _joined(parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _document(self, place: int) -> Document:
        at = int(np.searchsorted(self._starts, place, "right")) - 1
        return self._every[at].document(place - int(self._starts[at]))

    @staticmethod
    def _id(line: bytes) -> str:
        return str(json.loads(line)["id"])

    def _example(self, side: str) -> list[str]:
        """The ids of one pair, (left out, kept), or none."""
        border = self._starts[len(self._shards["target"])]
        mine = (pair for pair in self._near.items() if (pair[0] < border) == (side == "target"))
        return [self._document(place).id for place in next(mine, ())]


class _Makeup:
    """What training text is made of: by source, by licence, and by length (at most so many characters)."""

    def __init__(self) -> None:
        self.documents = self.bytes = self.held_out_documents = self.held_out_bytes = 0
        self._sources: dict[str, dict[str, Any]] = {}
        self._licences: dict[str, dict[str, Any]] = {}
        self._lengths: Counter[int] = Counter()

    def add(self, shard: Prepared, kept: Mask, held: Mask) -> None:
        """Add the parts of a shard that stay."""
        sizes, chars, origins = (shard.fact(name).astype(np.int64) for name in ("bytes", "chars", "origin"))
        train = kept & ~held
        self.documents += int(train.sum())
        self.bytes += int(sizes[train].sum())
        self.held_out_documents += int((kept & held).sum())
        self.held_out_bytes += int(sizes[kept & held].sum())
        for number, (source, licence) in enumerate(shard.tally["origins"]):
            mine = train & (origins == number)
            if not (count := int(mine.sum())):
                continue
            for row in (
                self._sources.setdefault(source, {"documents": 0, "bytes": 0, "license": licence}),
                self._licences.setdefault(licence, {"documents": 0, "bytes": 0}),
            ):
                row["documents"] += count
                row["bytes"] += int(sizes[mine].sum())
        bounds = 1 << np.ceil(np.log2(np.maximum(chars[train], 1))).astype(np.int64)
        self._lengths.update({int(b): int(n) for b, n in zip(*np.unique(bounds, return_counts=True), strict=True)})

    def told(self) -> dict[str, Any]:
        """The figures of a manifest."""
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "held_out_documents": self.held_out_documents,
            "held_out_bytes": self.held_out_bytes,
            "sources": dict(sorted(self._sources.items())),
            "licences": dict(sorted(self._licences.items())),
            "lengths": {str(bound): count for bound, count in sorted(self._lengths.items())},
        }


def _check_not_empty(side: str, makeup: _Makeup, tally: Tally) -> None:
    if not makeup.documents or not makeup.held_out_documents:
        what = "to train on" if not makeup.documents else "held out to measure on"
        raise DataError(
            f"data.{side}: no text left {what} after cleaning; dropped: {dict(tally.dropped) or 'none'}. "
            "Give more text, or change data.min_chars, data.min_script_share, data.near_duplicates or data.held_out"
        )
