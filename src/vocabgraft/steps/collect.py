"""02-collect: read the sources into one document file a side, and account for every record.

Each file is a task of its own. What they told is put together in source order here: the limit in bytes, damaged
records and repeated ids are matters of the whole side, so nothing depends on who read what, or when.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vocabgraft.corpus.document import UNREADABLE, Tally
from vocabgraft.corpus.source import TEXT_FIELDS, locate
from vocabgraft.durable import digest, write_json
from vocabgraft.errors import DataError, ProofError
from vocabgraft.recipe_data import Data
from vocabgraft.scale.engines import ALONE, Engine, bring_about
from vocabgraft.scale.tasks import Receipt, Stretch, Task, discard, sweep
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.reading import LINES, REVISION, id_hashes

SIDES = ("target", "replay")
_PINNED = re.compile(r"@[0-9a-f]{40}(?=[#:]|$)")


def collect(context: Context) -> StepResult:
    """Read what each side names; `tally.json` also accounts for each file."""
    metrics: dict[str, Any] = {}
    accounts: dict[str, Any] = {}
    used: set[Path] = set()
    for side in SIDES:
        reading = _Reading(side, context.recipe.data, context.shards, context.engine)
        with context.reporter.bar(f"reading {side}", reading.size) as advance:
            reading.read(advance)
        reading.check()
        shards = reading.write(context.out / f"{side}.jsonl")
        write_json(context.out / f"{side}.shards.json", shards)
        metrics[side] = reading.tally.as_dict() | {"repeated_ids": reading.repeated, "not_read": reading.left}
        files = {name: tally.as_dict() for name, tally in sorted(reading.tally.files.items())}
        accounts[side] = metrics[side] | {"files": files}
        used |= reading.used
        if reading.left:
            context.reporter.say(f"data.max_bytes is reached; not read to the end: {', '.join(reading.left)}")
    write_json(context.out / "tally.json", accounts)
    sweep(context.shards, used)
    return StepResult(metrics)


@dataclass(frozen=True)
class _Part:
    """What one task reads: a file of a source, or a data set of the hub (no path)."""

    source: str
    place: int
    name: str
    license: str
    path: Path | None
    known: str = ""
    """As which known data set rows at `path` are read."""

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size if self.path else 0


@dataclass
class _Reading:
    """One side: what is read, what is left, and whether it may go on."""

    side: str
    data: Data
    folder: Path
    engine: Engine
    tally: Tally = field(default_factory=Tally)
    taken: list[tuple[Path, Receipt]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Sources that were not read to their end, since `data.max_bytes` was reached."""
    total: int = 0
    used: set[Path] = field(default_factory=set)

    @property
    def names(self) -> tuple[str, ...]:
        return self.data.target if self.side == "target" else self.data.replay

    @property
    def size(self) -> int:
        return sum(part.bytes for part in self._parts())

    @property
    def repeated(self) -> int:
        """Documents with an id that came before. They stay: held out are all of one id or none."""
        ids = np.concatenate([np.zeros(0, np.uint64), *(id_hashes(folder) for folder, _ in self.taken)])
        return len(ids) - len(np.unique(ids))

    def read(self, advance: Callable[[int], None]) -> None:
        """Read up to the limit in bytes, some files at a time; stop at more damaged records than are allowed."""
        waiting = deque(self._parts())
        while waiting and not self.left:
            wave = self._wave(waiting)
            tasks = [self._task(part, self.data.max_bytes if part.path else self._rest) for part in wave]
            for part, task in zip(wave, tasks, strict=True):
                if part.path is None and not _PINNED.search(part.source):
                    discard(task.out)  # what it holds today is not known
            sizes = {task.out: part.bytes for part, task in zip(wave, tasks, strict=True)}
            engine = ALONE if wave[0].path is None else self.engine
            outcomes = bring_about(tasks, engine, lambda task, sizes=sizes: advance(sizes[task.out]))
            for part, task, outcome in zip(wave, tasks, outcomes, strict=True):
                if self.left:
                    break
                self._take(part, task, outcome)

    def check(self) -> None:
        """Raise ProofError where a record is missing, DataError where nothing came of a side or of a file."""
        self.tally.check()
        if not self.tally.kept:
            dropped = dict(self.tally.dropped) or "none"
            raise DataError(f"data.{self.side}: no document in {', '.join(self.names)}; dropped: {dropped}")
        for file, tally in self.tally.files.items():
            if tally.dropped["no text"] == tally.read > 0:
                raise DataError(
                    f"data.{self.side}: none of the {tally.read} records of {file} has text in a field called "
                    f"{', '.join(TEXT_FIELDS)}; rename its field, or leave the file out"
                )

    def write(self, path: Path) -> list[dict[str, Any]]:
        """Put the shards one after the other into one file and return what they are, in order."""
        import zstandard

        shards = [shard for _, receipt in self.taken for shard in receipt["tally"]["shards"]]
        partial, written = path.with_name(path.name + ".partial"), sum(s["documents"] for s in shards)
        with partial.open("wb") as file:
            for folder, _ in self.taken:
                with (folder / LINES).open("rb") as packed:
                    zstandard.ZstdDecompressor().copy_stream(packed, file)
        if written != self.tally.kept or partial.stat().st_size != sum(s["bytes"] for s in shards):
            raise ProofError(f"{self.tally.kept} documents were kept and {written} written; please report this bug")
        partial.replace(path)
        return shards

    @property
    def _rest(self) -> int:
        return self.data.max_bytes - self.total

    def _parts(self) -> Iterator[_Part]:
        for place, source in enumerate(self.names):
            located = locate(source)
            paths = (None,) if located.hub else located.paths
            license, known = located.license or self.data.license, located.known.name if located.known else ""
            yield from (_Part(source, place, located.name, license, path, known) for path in paths)

    def _wave(self, waiting: deque[_Part]) -> list[_Part]:
        """The next files: so many that they may hold what is left to the limit; a data set of the hub goes alone."""
        wave = [waiting.popleft()]
        while waiting and wave[-1].path and waiting[0].path and sum(p.bytes for p in wave) < self._rest:
            wave.append(waiting.popleft())
        return wave

    def _task(self, part: _Part, limit: int) -> Task:
        settings = {
            "path": str(part.path) if part.path else None,
            "source": part.name if part.path else part.source,
            "license": part.license,
            "known": part.known,
            "language": self.data.language if self.side == "target" else "en",
            "max_bytes": limit,
            "max_unreadable": self.data.max_unreadable,
        }
        inputs = (Stretch(part.path),) if part.path else ()
        self.used.add(out := self.folder / digest(settings)[:24])
        return Task("vocabgraft.steps.reading:read", REVISION, settings, inputs, out)

    def _take(self, part: _Part, task: Task, outcome: Receipt | Exception | None) -> None:
        over = not isinstance(outcome, dict) or outcome["tally"]["bytes"] > self._rest
        if over and task.settings["max_bytes"] > self._rest:
            # The limit falls into this file, or before what is wrong with it: read it again with what is left.
            task = self._task(part, self._rest)
            outcome = bring_about([task], self.engine)[0]
        if not isinstance(outcome, dict):
            raise outcome or ProofError(f"{part.source} was not read; please report this bug")
        told = outcome["tally"]
        tally = Tally.from_dict(told["tally"])
        if told["file"]:
            tally.files[told["file"]] = Tally.from_dict(told["tally"])
        if told["beyond"] is not None:
            tally.drop_kept("beyond data.max_bytes", told["beyond"])
            self.left += self.names[part.place :]
        self.tally.add(tally)
        self.taken.append((task.out, outcome))
        self.total += told["bytes"]
        self._check_readable()

    def _check_readable(self) -> None:
        found, most = self.tally.unreadable, self.data.max_unreadable
        if found > most:
            places = [f"{place} ({reason})" for reason, place in self.tally.examples.items() if reason in UNREADABLE]
            raise DataError(
                f"data.{self.side}: {found} damaged {'record' if found == 1 else 'records'}, {most} are allowed: "
                f"{', '.join(places)}; repair the file, or say how many may be left out: data.max_unreadable"
            )
