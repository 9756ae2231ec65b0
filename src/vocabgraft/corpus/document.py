"""Documents, where they come from, and an account of every record that was left out.

Reading is strict per record and lenient per file: a record with a bad byte is dropped and counted, the next one is
read; a file that ends early is an error, because half a corpus must not pass for a whole one. Whatever is read is
either kept or dropped for a named reason (`Tally.check`). A source string is explained in `source.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

from vocabgraft.corpus.lines import MAX_LINE_BYTES, read_lines
from vocabgraft.corpus.source import TEXT_FIELDS, WEB_ENDINGS, Located, hub_rows, locate, stem
from vocabgraft.corpus.sources import Source
from vocabgraft.corpus.tables import csv_rows, parquet_rows
from vocabgraft.corpus.web import web_rows
from vocabgraft.errors import DataError, ProofError

#: Reasons that say that a record is damaged, not that it holds no text.
UNREADABLE = frozenset(
    {
        "invalid UTF-8",
        "invalid JSON",
        "invalid CSV",
        "invalid record",
        "invalid encoding",
        "NUL character",
        "lone surrogate",
        "longer than 64 MiB",
    }
)
_TOO_LONG = "longer than 64 MiB"


@dataclass(frozen=True, slots=True)
class Document:
    """A text with where it comes from and under which licence."""

    id: str
    text: str
    language: str
    source: str
    license: str


_FIELDS = tuple(f.name for f in fields(Document))


@dataclass(slots=True)
class Tally:
    """An account of records: every one read was kept or dropped for a reason. Use one per pass over the data.

    `examples` holds one place ('file:line') per reason and never text, which may be personal. `files` holds the
    account of each file where one was named.
    """

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    files: dict[str, Tally] = field(default_factory=dict)

    @property
    def unreadable(self) -> int:
        """How many records were damaged."""
        return sum(self.dropped[reason] for reason in UNREADABLE)

    def keep(self, file: str = "") -> None:
        """Count one record as read and kept."""
        self.read += 1
        self.kept += 1
        if file:
            self.files.setdefault(file, Tally()).keep()

    def drop(self, reason: str, place: str, file: str = "") -> None:
        """Count one record as read and dropped."""
        self.read += 1
        self.dropped[reason] += 1
        self.examples.setdefault(reason, place)
        if file:
            self.files.setdefault(file, Tally()).drop(reason, place)

    def drop_kept(self, reason: str, place: str) -> None:
        """Count a record that was kept as dropped after all; its file's account, which is of reading, stays."""
        self.read, self.kept = self.read - 1, self.kept - 1
        self.drop(reason, place)

    def add(self, other: Tally) -> None:
        """Add the account of what was read next; of the examples the first stay."""
        self.read, self.kept = self.read + other.read, self.kept + other.kept
        self.dropped.update(other.dropped)
        for reason, place in other.examples.items():
            self.examples.setdefault(reason, place)
        for file, tally in other.files.items():
            self.files.setdefault(file, Tally()).add(tally)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Tally:
        """Back from `as_dict`."""
        return cls(told["read"], told["kept"], Counter(told["dropped"]), dict(told["examples"]))

    def check(self) -> None:
        """Raise ProofError unless read == kept + dropped, and so in each file."""
        if self.read != self.kept + self.dropped.total():
            raise ProofError(f"records went missing: {self.as_dict()}; this is a bug, please report it")
        for tally in self.files.values():
            tally.check()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a manifest, reasons in order of name."""
        return {
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "examples": dict(sorted(self.examples.items())),
        }


def read_source(
    source: str, *, language: str, license: str, tally: Tally, base_dir: Path | None = None
) -> Iterator[Document]:
    """Stream the documents of a file, folder, package sample or hub data set.

    A row's own `id`, `source` and `license` win over the defaults: '<file stem>:<line>' (hub:
    '<name>-<config>-<split>:<row>'), the name of the source, `license`. Documents of a text file are separated by
    blank lines; without any, each line is one. A missing source raises DataError at the call, a truncated archive
    where it ends.
    """
    located = locate(source, base_dir)
    plain = Document("", "", language, located.name, located.license or license)
    if located.hub is not None:
        hub = located.hub
        name = "-".join(part for part in (hub.dataset.rpartition("/")[2], hub.config, hub.split) if part)
        numbered = ((i, row) for i, row in enumerate(hub_rows(hub, located.known), start=1))
        return _documents(numbered, name, name, plain, tally)
    return (document for path in located.paths for document in read_file(path, plain, tally, located.known))


def read_file(path: Path, plain: Document, tally: Tally, known: Source | None = None) -> Iterator[Document]:
    """Stream the documents of one file; `plain` holds language, source and licence where a row has none of its own."""
    return _documents(_records(path, known), stem(path), str(path), plain, tally)


def describe_source(source: str, base_dir: Path | None = None) -> dict[str, Any]:
    """Return kind, name, absolute paths, bytes on disk (None for the hub) and hub names; raise as `read_source`."""
    located: Located = locate(source, base_dir)
    if located.hub is not None:
        hub_rows(located.hub, located.known)
    return {
        "kind": located.kind,
        "name": located.name,
        "paths": [str(path.resolve()) for path in located.paths],
        "bytes": None if located.hub else sum(path.stat().st_size for path in located.paths),
        "hub": asdict(located.hub) if located.hub else None,
        "ignored": list(located.ignored),
        "license": located.license,
    }


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Write one JSON object a line, fields in fixed order; return how many. The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, count = path.with_name(path.name + ".partial"), 0
    with partial.open("wb") as file:
        for document in documents:
            file.write(document_line(document))
            count += 1
    partial.replace(path)
    return count


def document_line(document: Document) -> bytes:
    """One JSON object with its line end, fields in fixed order; a lone surrogate raises DataError."""
    try:
        return (json.dumps(asdict(document), ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError as e:
        raise DataError(f"document {document.id!a} holds a lone surrogate; read it with read_source") from e


def read_documents(path: Path) -> Iterator[Document]:
    """Read what `write_documents` wrote; anything else raises DataError with its line."""
    for number, line in read_lines(path):
        yield parse_document(line or b"", f"{path}:{number}")


def parse_document(line: bytes, place: str) -> Document:
    """What `document_line` made; anything else raises DataError with its place."""
    try:
        row = json.loads(line.decode("utf-8"))
        values = [row[name] for name in _FIELDS]
    except (ValueError, TypeError, KeyError) as e:
        raise DataError(f"{place} is not a document ({type(e).__name__}: {e}); redo its step") from e
    if not all(isinstance(value, str) for value in values):
        raise DataError(f"{place} is not a document: every field must be text; redo its step")
    return Document(*values)


def held_out(text_id: str, share: float, salt: str = "vocabgraft") -> bool:
    """Decide by SHA-256 whether a document is held out: the same on every machine, growing with `share` (0 to 1)."""
    if not 0 <= share <= 1:
        raise DataError(f"the held-out share is {share}; it must be from 0 to 1")
    digest = hashlib.sha256(f"{salt}\0{text_id}".encode("utf-8", "surrogatepass")).digest()
    # 53 bits: more would round up to 1.0 and leave a document in when all are to be held out.
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53) < share


def _documents(
    records: Iterable[tuple[int, Mapping[str, Any] | str]], prefix: str, file: str, plain: Document, tally: Tally
) -> Iterator[Document]:
    """file: its path, or a name."""
    name = file.rpartition("/")[2]
    for number, record in records:
        made = record if isinstance(record, str) else _document(record, f"{prefix}:{number}", plain)
        if isinstance(made, str):
            tally.drop(made, f"{name}:{number}", file)
        else:
            tally.keep(file)
            yield made


def _document(row: Mapping[str, Any], default_id: str, plain: Document) -> Document | str:
    """Make a document of a row, or say why not."""
    texts = [row[name] for name in TEXT_FIELDS if isinstance(row.get(name), str)]
    if not texts:
        return "no text"
    text = next((t for t in texts if t.strip()), "")
    document = Document(
        id=_label(row.get("id")) or default_id,
        text=text,
        language=plain.language,
        source=_label(row.get("source")) or plain.source,
        license=_label(row.get("license")) or _label(row.get("licence")) or plain.license,
    )
    everything = "\n".join((document.id, text, document.source, document.license))
    if "\0" in everything:
        return "NUL character"
    try:
        everything.encode()
    except UnicodeEncodeError:
        return "lone surrogate"
    return document if text else "empty"


def _label(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _records(path: Path, known: Source | None = None) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Yield (line, row or reason to drop it), the row with its text in a field 'text' where its source is known."""
    rows = _rows(path, known.columns if known else ())
    if known is None:
        return rows
    return ((number, row if isinstance(row, str) else known.document(row)) for number, row in rows)


def _rows(path: Path, columns: Collection[str]) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    if path.name.endswith(WEB_ENDINGS):
        return web_rows(path)
    if path.suffix == ".parquet":
        return parquet_rows(path, columns)
    if ".csv" in path.suffixes[-2:]:
        return csv_rows(path, columns)
    return _json_rows(path) if ".jsonl" in path.suffixes[-2:] else _text_rows(path)


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    for number, line in read_lines(path):
        if line is None or line.strip():
            yield number, _json_row(line)


def _json_row(line: bytes | None) -> Mapping[str, Any] | str:
    if line is None:
        return _TOO_LONG
    if b"\0" in line:
        return "NUL character"
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "invalid UTF-8"
    except (ValueError, RecursionError):
        return "invalid JSON"
    return row if isinstance(row, dict) else "no text"


def _text_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    if _has_blank_line(path):
        yield from _paragraph_rows(path)
        return
    for number, line in read_lines(path):
        if line is None or line.strip():
            yield number, _text_row([line])


def _paragraph_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    start, size = 0, 0
    held: list[bytes | None] = []
    for number, line in chain(read_lines(path), [(0, b"")]):
        if line is not None and not line.strip():
            if held:
                yield start, _text_row(held)
            held, size = [], 0
            continue
        start = start if held else number
        size += len(line or b"")
        # Beyond the limit nothing more is held; the record is dropped when it ends.
        if size > MAX_LINE_BYTES:
            held = [None]
        else:
            held.append(line)


def _text_row(lines: list[bytes | None]) -> Mapping[str, Any] | str:
    whole = [line for line in lines if line is not None]
    if len(whole) < len(lines):
        return _TOO_LONG
    try:
        return {"text": b"\n".join(whole).decode("utf-8")}
    except UnicodeDecodeError:
        return "invalid UTF-8"


def _has_blank_line(path: Path) -> bool:
    """Tell whether a blank line stands between two others: then documents are paragraphs, else lines."""
    before = gap = False
    for _, line in read_lines(path):
        blank = line is not None and not line.strip()
        if gap and not blank:
            return True
        before, gap = before or not blank, before and blank
    return False
