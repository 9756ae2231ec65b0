"""02-collect: read the sources into one document file a side, and account for every record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vocabgraft.corpus.document import UNREADABLE, Document, Tally, read_source, write_documents
from vocabgraft.corpus.source import TEXT_FIELDS
from vocabgraft.durable import write_json
from vocabgraft.errors import DataError, ProofError
from vocabgraft.recipe_sections import Data
from vocabgraft.steps.context import Context, StepResult

SIDES = ("target", "replay")


def collect(context: Context) -> StepResult:
    """Read what each side names; `tally.json` also accounts for each file."""
    metrics: dict[str, Any] = {}
    accounts: dict[str, Any] = {}
    for side in SIDES:
        reading = _Reading(side, context.recipe.data)
        written = write_documents(context.out / f"{side}.jsonl", reading.documents())
        reading.check(written)
        metrics[side] = reading.tally.as_dict() | {"repeated_ids": reading.repeated, "not_read": reading.left}
        files = {name: tally.as_dict() for name, tally in sorted(reading.tally.files.items())}
        accounts[side] = metrics[side] | {"files": files}
        if reading.left:
            context.reporter.say(f"data.max_bytes is reached; not read to the end: {', '.join(reading.left)}")
    write_json(context.out / "tally.json", accounts)
    return StepResult(metrics)


@dataclass
class _Reading:
    """One side: what is read, what is left, and whether it may go on."""

    side: str
    data: Data
    tally: Tally = field(default_factory=Tally)
    repeated: int = 0
    """Documents with an id that came before. They stay: held out are all of one id or none."""
    left: list[str] = field(default_factory=list)
    """Sources that were not read to their end, since `data.max_bytes` was reached."""

    @property
    def names(self) -> tuple[str, ...]:
        return self.data.target if self.side == "target" else self.data.replay

    def documents(self) -> Iterator[Document]:
        """Stream the documents up to the limit in bytes; stop at the first damaged record beyond those allowed."""
        language, total, ids = self.data.language if self.side == "target" else "en", 0, set[int]()
        for n, name in enumerate(self.names):
            for document in read_source(name, language=language, license=self.data.license, tally=self.tally):
                self._check_readable()
                total += len(document.text.encode())
                if total > self.data.max_bytes:
                    self.tally.drop_kept("beyond data.max_bytes", document.id)
                    self.left += self.names[n:]
                    return
                self.repeated += hash(document.id) in ids
                ids.add(hash(document.id))
                yield document
            self._check_readable()

    def check(self, written: int) -> None:
        """Raise ProofError where a record is missing, DataError where nothing came of a side or of a file."""
        self.tally.check()
        if written != self.tally.kept:
            raise ProofError(f"{self.tally.kept} documents were kept and {written} written; please report this bug")
        if written == 0:
            dropped = dict(self.tally.dropped) or "none"
            raise DataError(f"data.{self.side}: no document in {', '.join(self.names)}; dropped: {dropped}")
        for file, tally in self.tally.files.items():
            if tally.dropped["no text"] == tally.read > 0:
                raise DataError(
                    f"data.{self.side}: none of the {tally.read} records of {file} has text in a field called "
                    f"{', '.join(TEXT_FIELDS)}; rename its field, or leave the file out"
                )

    def _check_readable(self) -> None:
        found, most = self.tally.unreadable, self.data.max_unreadable
        if found > most:
            places = [f"{place} ({reason})" for reason, place in self.tally.examples.items() if reason in UNREADABLE]
            raise DataError(
                f"data.{self.side}: {found} damaged {'record' if found == 1 else 'records'}, {most} are allowed: "
                f"{', '.join(places)}; repair the file, or say how many may be left out: data.max_unreadable"
            )
