"""The task of step 04: clean a shard, take personal data out, split, drop, and find what tells duplicates apart.

Everything here looks at one document at a time. What needs all of them (duplicates) is left to `preprocess.py`, which
gets a few numbers of each text instead of the text.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np

from vocabgraft.corpus.clean import clean_text, reason_to_drop, split_long
from vocabgraft.corpus.dedup import digests
from vocabgraft.corpus.document import Document, Tally, document_line, held_out, parse_document
from vocabgraft.corpus.near_duplicates import signed
from vocabgraft.errors import DataError
from vocabgraft.evaluation.leaks import LeakIndex
from vocabgraft.evaluation.questions import Question
from vocabgraft.scale.tasks import Stretch
from vocabgraft.steps.privacy import key_of, privacy_guard, without_personal
from vocabgraft.steps.questions import LEAKED
from vocabgraft.steps.selection import chosen, rules_of

REVISION = 1
LINES, FACTS = "documents.jsonl", "facts.safetensors"


def prepare(settings: dict[str, Any], inputs: Sequence[Stretch], out: Path) -> dict[str, Any]:
    """Write what is left of a shard's documents and the facts of each; tell the tally of parts and of personal data.

    inputs: the shard, the questions that no text may hold, and what was learnt of a topic where there is one.
    """
    shard, asked, *topic = inputs
    if settings["key_check"] != key_check(settings["privacy"], settings["privacy_key"]):
        raise DataError(f"the environment variable {settings['privacy_key']} holds another secret on this worker")
    guard = privacy_guard(settings["privacy"], settings["privacy_key"])
    tally, personal, facts = Tally(), Counter[str](), _Facts(settings)
    read = [0]
    rules = rules_of(settings["quality"], next(iter(topic), None))
    documents = without_personal(chosen(_clean(shard, read), rules, tally), guard, tally, personal)
    with (out / LINES).open("wb") as file:
        for part in _without_leaks(_parts(documents, settings, tally), leak_index(asked.path, asked.sha256), tally):
            tally.keep()
            file.write(line := document_line(part))
            facts.add(part, len(line))
    tally.check()
    told = facts.write(out / FACTS)
    return {"documents": read[0], "tally": tally.as_dict(), "privacy": dict(sorted(personal.items())), **told}


def key_check(privacy: str, variable: str) -> str:
    """What tells one secret from another without telling it; empty where none is used."""
    return hmac.digest(key_of(variable), b"vocabgraft shards", "sha256").hex()[:16] if privacy == "replace" else ""


def leak_index(path: Path, sha256: str) -> LeakIndex:
    """The items that `write_questions` wrote, ready to be looked for; the last one is kept at hand."""
    return _leak_index(path, sha256)


@lru_cache(1)
def _leak_index(path: Path, sha256: str) -> LeakIndex:
    rows = json.loads(Stretch(path, sha256=sha256).read())
    return LeakIndex([Question(**{**row, "options": tuple(row["options"])}) for row in rows])


def _clean(shard: Stretch, read: list[int]) -> Iterator[Document]:
    for number, line in enumerate(shard.read().split(b"\n")[:-1], start=1):
        document = parse_document(line, f"{shard.path}, byte {shard.start} on, line {number}")
        read[0] += 1
        yield replace(document, text=clean_text(document.text))


def _parts(documents: Iterable[Document], settings: dict[str, Any], tally: Tally) -> Iterator[Document]:
    for document in documents:
        for n, text in enumerate(split_long(document.text, settings["max_chars"]) or [""]):
            reason = reason_to_drop(
                text,
                script=settings["script"],
                min_script_share=settings["min_script_share"],
                min_chars=settings["min_chars"],
                max_chars=settings["max_chars"],
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


@dataclass
class _Facts:
    """What the step needs to know of each part, and no text of it."""

    settings: dict[str, Any]
    texts: list[str] = field(default_factory=list)
    rows: list[tuple[int, int, int, int, bool]] = field(default_factory=list)
    origins: dict[tuple[str, str], int] = field(default_factory=dict)
    end: int = 0

    def add(self, part: Document, size: int) -> None:
        self.end += size
        origin = self.origins.setdefault((part.source, part.license), len(self.origins))
        held = held_out(part.id.rpartition("#")[0], self.settings["held_out"])
        self.rows.append((self.end, len(part.text), len(part.text.encode()), origin, held))
        self.texts.append(part.text)

    def write(self, path: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        table = np.array(self.rows, np.uint64).reshape(-1, 5)
        orders = b"".join(hashlib.sha256(t.encode()).digest()[:16] for t in self.texts)
        found = {
            **{name: np.ascontiguousarray(table[:, n]) for n, name in enumerate(("ends", "chars", "bytes", "origin"))},
            "held": table[:, 4].astype(np.uint8),
            "digests": digests(self.texts),
            "orders": np.frombuffer(orders, ">u8").astype(np.uint64).reshape(-1, 2),
        }
        bands = 0
        if self.settings["near_duplicates"]:
            known, keys, marks = signed(self.texts, self.settings["near_duplicates"])
            found |= {"known": known, "marks": marks, **{f"band.{n}": key for n, key in enumerate(keys)}}
            bands = len(keys)
        save_file(found, path)
        return {"parts": len(self.texts), "bands": bands, "origins": [list(o) for o in self.origins]}


@dataclass(frozen=True)
class Prepared:
    """What `prepare` left of one shard."""

    folder: Path
    tally: dict[str, Any]

    def __len__(self) -> int:
        return int(self.tally["parts"])

    def fact(self, name: str) -> np.ndarray:
        """One fact of every part, in order."""
        from safetensors import safe_open

        with safe_open(self.folder / FACTS, "np") as file:
            return file.get_tensor(name)

    @cached_property
    def ends(self) -> np.ndarray:
        """Where the line of each part ends."""
        return self.fact("ends")

    def line(self, number: int) -> bytes:
        """The line of a part."""
        start = int(self.ends[number - 1]) if number else 0
        with (self.folder / LINES).open("rb") as file:
            file.seek(start)
            return file.read(int(self.ends[number]) - start)

    def document(self, number: int) -> Document:
        """A part."""
        return parse_document(self.line(number), f"{self.folder / LINES}:{number + 1}")
