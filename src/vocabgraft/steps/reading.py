"""The task of step 02: read one file, or one data set of the hub, up to a limit, and account for every record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vocabgraft.corpus.document import Document, Tally, document_line, read_file, read_source
from vocabgraft.corpus.sources import catalogue
from vocabgraft.scale.tasks import Stretch

REVISION = 1
LINES, IDS = "documents.jsonl.zst", "ids"
SHARD_BYTES = 16 << 20


def read(settings: dict[str, Any], inputs: Sequence[Stretch], out: Path) -> dict[str, Any]:
    """Write the documents of a file and a hash of each id; tell the tally, the bytes, and where shards begin.

    A shard is at most 16 MB of lines, or one document. It ends early where more records are damaged than are allowed,
    and before the first document beyond `max_bytes` of text, whose id is told.
    """
    import zstandard

    tally, total, beyond = Tally(), 0, None
    cut, ids = _Cut(), []
    packer = zstandard.ZstdCompressor(level=3, write_checksum=True)
    with (out / LINES).open("wb") as file, packer.stream_writer(file, closefd=False) as packed:
        for document in _documents(settings, tally):
            total += (size := len(document.text.encode()))
            if total > settings["max_bytes"]:
                total, beyond = total - size, document.id
                break
            packed.write(line := document_line(document))
            cut.add(line)
            ids.append(hashlib.blake2b(document.id.encode(), digest_size=8).digest())
            if tally.unreadable > settings["max_unreadable"]:
                break
    (out / IDS).write_bytes(b"".join(ids))
    return {
        "tally": tally.as_dict() | {"examples": tally.examples},  # in the order in which they stand
        "file": next(iter(tally.files), None),
        "bytes": total,
        "beyond": beyond,
        "shards": cut.ended(),
    }


def _documents(settings: dict[str, Any], tally: Tally) -> Iterator[Document]:
    plain = Document("", "", settings["language"], settings["source"], settings["license"])
    if settings["path"] is None:
        return read_source(plain.source, language=plain.language, license=plain.license, tally=tally)
    known = catalogue()[settings["known"]] if settings["known"] else None
    return read_file(Path(settings["path"]), plain, tally, known)


class _Cut:
    """Where lines are cut into shards."""

    def __init__(self) -> None:
        self._shards: list[dict[str, Any]] = []
        self._new()

    def _new(self) -> None:
        self._size, self._count, self._digest = 0, 0, hashlib.sha256()

    def add(self, line: bytes) -> None:
        if self._count and self._size + len(line) > SHARD_BYTES:
            self._end()
        self._size, self._count = self._size + len(line), self._count + 1
        self._digest.update(line)

    def _end(self) -> None:
        told = {"bytes": self._size, "documents": self._count, "sha256": self._digest.hexdigest()}
        self._shards.append(told)
        self._new()

    def ended(self) -> list[dict[str, Any]]:
        if self._count:
            self._end()
        return self._shards


def id_hashes(folder: Path) -> np.ndarray:
    """What `read` wrote of the ids, (N,) uint64."""
    return np.fromfile(folder / IDS, np.uint64)
