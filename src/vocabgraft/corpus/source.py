"""Where documents come from: what a source string of a recipe names on this machine.

    data/laws.jsonl.zst      a file            samples:korean                    what ships with the package
    data/laws/               a folder          hub:OWNER/NAME@REV#CONFIG:SPLIT   a data set of the Hugging Face hub
    source:fineweb-2-ko      a known data set (sources.py), or source:NAME=PATH   rows at hand, read as that one

Finding is apart from reading, so that a plan can say what is missing before anything runs.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from vocabgraft.corpus.sources import PREFIX, Source, named
from vocabgraft.errors import DataError

WEB_ENDINGS = (".warc", ".warc.gz", ".wet", ".wet.gz")
ENDINGS = (
    *(kind + pack for kind in (".jsonl", ".csv", ".txt") for pack in ("", ".gz", ".zst")),
    ".parquet",
    *WEB_ENDINGS,
)
#: Names under which a row may hold its text, best first.
TEXT_FIELDS = ("text", "content", "body")
SAMPLES_LICENSE = "Apache-2.0"

_HUB = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?:#([^:#@]+))?(?::([\w.-]+))?")


@dataclass(frozen=True, slots=True)
class HubName:
    """A data set of the hub, taken apart."""

    dataset: str
    revision: str | None
    config: str | None
    split: str


@dataclass(frozen=True, slots=True)
class Located:
    """A source string resolved: files in reading order, or a data set of the hub."""

    kind: str
    name: str
    paths: tuple[Path, ...] = ()
    hub: HubName | None = None
    license: str | None = None
    known: Source | None = None
    """The entry of the catalogue whose rows these are."""
    ignored: tuple[str, ...] = ()
    """What a folder holds besides: files of other kinds, links to folders."""


def locate(source: str, base_dir: Path | None = None) -> Located:
    """Resolve a source string. Relative paths start at `base_dir` (default: the working folder).

    Folders are searched with their subfolders, names in order, hidden ones left out. Raises DataError.
    """
    if source.startswith("samples:"):
        return _samples(source)
    if source.startswith(PREFIX):
        return _known(source, base_dir)
    if source.startswith("hub:"):
        return Located("hub", source, hub=_hub_name(source))
    if not source.strip():
        raise DataError("a source is empty; name a file, a folder, samples:korean or hub:OWNER/NAME")
    try:
        return _local((base_dir or Path()) / Path(source).expanduser())
    except (OSError, RuntimeError) as e:  # no permission, a name too long; ~nobody
        raise DataError(f"source {source[:200]!r} cannot be looked at ({str(e)[:200]}); check it") from e


def _known(source: str, base_dir: Path | None) -> Located:
    found = named(source)
    known = found.source
    if found.path is not None:
        return replace(locate(found.path, base_dir), name=known.name, license=known.license, known=known)
    hub = HubName(known.dataset, found.revision, found.config, known.split)
    return Located("hub", known.name, hub=hub, license=known.license, known=known)


def _local(path: Path) -> Located:
    if path.is_dir():
        paths, ignored = _inside(path)
        return Located("folder", path.resolve().name, paths=paths, ignored=ignored)
    if not path.exists():
        raise DataError(missing(path))
    if not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder; name one")
    if not path.name.endswith(ENDINGS):
        raise DataError(f"{path} is of an unknown kind; readable are {', '.join(ENDINGS)}")
    return Located("file", path.name, paths=(path,))


def missing(path: Path) -> str:
    """Say that a path does not exist, and what similar names its folder holds."""
    folder = path.parent
    if not folder.is_dir():
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        return f"{path} does not exist: {folder} has no such folder; check the path"
    names = sorted(entry.name for entry in folder.iterdir())
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    hint = f"similar names there: {', '.join(close)}" if close else f"nothing in {folder} has a similar name"
    return f"{path} does not exist; {hint}"


def samples_folder() -> Path:
    """Return the folder of the texts that ship with the package."""
    return Path(str(files("vocabgraft"))) / "samples"


def stem(path: Path) -> str:
    """Return the file name without its endings: 'laws' for 'laws.jsonl.zst'."""
    ending = max((e for e in ENDINGS if path.name.endswith(e)), key=len, default=path.suffix)
    return path.name.removesuffix(ending)


def hub_rows(hub: HubName, known: Source | None = None) -> Iterator[Mapping[str, Any]]:
    """Open a data set of the hub now and return an iterator over its rows, streamed, each with a field 'text'."""
    rows = open_hub(hub)
    return _named_rows(hub, rows) if known is None else map(known.document, rows)


def open_hub(hub: HubName) -> Iterator[Mapping[str, Any]]:
    """The same with the rows as they are."""
    try:
        from datasets import load_dataset
    except ImportError as e:
        raise _hub_error(hub, "the package 'datasets' is missing: pip install 'vocabgraft[hub]'") from e
    try:
        stream = load_dataset(hub.dataset, hub.config, split=hub.split, revision=hub.revision, streaming=True)
    except Exception as e:
        raise _hub_error(hub, str(e) or type(e).__name__) from e
    return _guarded(hub, iter(stream))


def _guarded(hub: HubName, rows: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as e:
            raise _hub_error(hub, f"interrupted: {e or type(e).__name__}") from e
        yield row


def _named_rows(hub: HubName, rows: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    field: str | None = None
    for row in rows:
        field = field or _text_field(hub, row)
        yield row if field in TEXT_FIELDS else {**row, "text": row.get(field)}


def _text_field(hub: HubName, row: Mapping[str, Any]) -> str:
    for field in TEXT_FIELDS:
        if field in row:
            return field
    strings = [name for name, value in row.items() if isinstance(value, str)]
    if len(strings) == 1:
        return strings[0]
    raise DataError(
        f"hub:{hub.dataset}: which column is the text? None is called {', '.join(TEXT_FIELDS)}; found are "
        f"{', '.join(sorted(row))}. Save it as .jsonl with a field 'text' and name that file as the source"
    )


def _hub_error(hub: HubName, found: str) -> DataError:
    # The hub's own words may run over many lines; the list of configurations is in the second.
    return DataError(
        f"data set {hub.dataset} of the Hugging Face hub cannot be read: {' '.join(found.split())[:300]}\n"
        "  if it asks for a licence: accept its terms on the hub and log in (hf auth login)\n"
        f"  without the hub: download https://huggingface.co/datasets/{hub.dataset} elsewhere and name the .parquet "
        "or .jsonl file or its folder as the source"
    )


def _hub_name(source: str) -> HubName:
    match = _HUB.fullmatch(source)
    if match is None:
        raise DataError(f"{source!r} is not of the form hub:OWNER/NAME[@REVISION][#CONFIG][:SPLIT]")
    dataset, revision, config, split = match.groups()
    return HubName(dataset, revision, config, split or "train")


def _samples(source: str) -> Located:
    name = source.removeprefix("samples:")
    folders = {entry.name: entry for entry in sorted(samples_folder().iterdir()) if entry.is_dir()}
    paths = tuple(sorted(folders[name].glob("*.jsonl"))) if name in folders else ()
    if not paths:
        known = ", ".join(f"samples:{folder}" for folder in folders)
        raise DataError(f"{source!r} is not among the texts of the package; there are {known}")
    return Located("samples", source, paths=paths, license=SAMPLES_LICENSE)


def _inside(folder: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """What a folder holds to be read, and what not: hidden names aside, nothing is passed over in silence."""
    found, ignored = [], []
    for here, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        ignored += [path for path in (Path(here, name) for name in folders) if path.is_symlink()]
        for path in (Path(here, name) for name in names if not name.startswith(".")):
            if not path.name.endswith(ENDINGS):
                ignored.append(path)
            elif path.is_file():
                found.append(path)
            else:
                raise DataError(f"{path} is a link to nothing, or no file; mend or remove it")
    if not found:
        raise DataError(f"{folder} holds no readable file; wanted are names ending in {', '.join(ENDINGS)}")
    found.sort(key=lambda path: path.relative_to(folder).as_posix())
    return tuple(found), tuple(sorted(path.relative_to(folder).as_posix() for path in ignored))


def _refuse(error: OSError) -> None:
    raise error
