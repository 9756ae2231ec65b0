"""Entries of bilingual dictionaries, which align two embedding spaces (WECHSEL, arXiv 2112.06598, section 3).

A file is tab-separated with a header, the two languages by their codes and the rest by name, in any order:
`en<TAB>ko[<TAB>domain][<TAB>source][<TAB>license][<TAB>pos]`. Other names of the two columns stand behind the
file's, as in `kcd.tsv[영문명칭,한글명칭]` or `hub:OWNER/NAME:train[english,korean]`. `word_pairs.py` says what is done
with entries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from vocabgraft.corpus.clean import clean_text
from vocabgraft.corpus.document import Tally
from vocabgraft.corpus.lines import read_lines
from vocabgraft.corpus.source import SAMPLES_LICENSE, locate, missing, open_hub, samples_folder
from vocabgraft.errors import DataError

SAMPLE = "samples:dictionary"
_LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]+)*")
_SEPARATOR = re.compile(r"[\t\r\n]")
_ASKED = re.compile(r"(.+)\[([^][,]+),([^][,]+)\]")
_FIELDS = {
    "domain": "domain",
    "license": "license",
    "licence": "license",
    "source": "origin",
    "pos": "pos",
    "part of speech": "pos",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """An entry: a word of the source language, its translation, the work it was taken from, its part of speech."""

    source: str
    target: str
    domain: str = ""
    license: str = ""
    origin: str = ""
    pos: str = ""


def dictionary_file(source: str) -> Path | None:
    """The file that a dictionary's name stands for; None for a data set of the hub."""
    name = _taken_apart(source)[0]
    if name.startswith("hub:"):
        return None
    return samples_folder() / "dictionary.tsv" if name == SAMPLE else Path(name).expanduser()


def read_pairs(source: str | Path, tally: Tally, languages: tuple[str, str] = ("en", "ko")) -> Iterator[Pair]:
    """Stream the entries of a file (also .gz, .zst), of a data set of the hub or of `samples:dictionary`.

    Entries are cleaned; bad ones are dropped as 'invalid UTF-8', 'NUL character', 'missing column' or 'empty'.
    Without columns of these languages the first two are taken. A missing file or header raises DataError at the call.
    """
    name, asked = _taken_apart(str(source))
    if name.startswith("samples:") and name != SAMPLE:
        raise DataError(f"{name!r} is not a dictionary of the package; there is {SAMPLE}")
    file = dictionary_file(name)
    if file is None:
        return _hub_pairs(name, asked, languages, tally)
    if not file.is_file():
        raise DataError(f"{file} is a folder; name a .tsv file" if file.is_dir() else missing(file))
    sample = name == SAMPLE
    plain = Pair("", "", license=SAMPLES_LICENSE if sample else "", origin=SAMPLE if sample else file.name)
    lines = read_lines(file)
    names = (next(lines, (1, b""))[1] or b"").decode("utf-8", "replace").strip("\r\n").split("\t")
    columns = _columns(f"{file}:1", names, asked, languages)
    return _pairs(
        ((n, _fields(line)) for n, line in lines if line is None or line.strip()), columns, plain, file.name, tally
    )


def write_pairs(path: Path, pairs: Iterable[Pair], *, languages: tuple[str, str] = ("en", "ko")) -> int:
    """Write entries so that `read_pairs` gives the same again; return how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, count = path.with_name(path.name + ".partial"), 0
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join((*languages, "domain", "source", "license", "pos")) + "\n")
        for pair in pairs:
            values = (pair.source, pair.target, pair.domain, pair.origin, pair.license, pair.pos)
            if any(_SEPARATOR.search(value) for value in values):
                raise DataError(f"pair {pair.source!r} holds a tab or a line end; clean_text takes them out")
            file.write("\t".join(values) + "\n")
            count += 1
    partial.replace(path)
    return count


def _taken_apart(source: str) -> tuple[str, tuple[str, str] | None]:
    """A name, and the two columns that it asks for."""
    match = _ASKED.fullmatch(source)
    return (match[1], (match[2].strip(), match[3].strip())) if match else (source, None)


def _columns(
    where: str, names: Sequence[str], asked: tuple[str, str] | None, languages: tuple[str, str]
) -> dict[str, int]:
    """Which place holds which field of a `Pair`."""
    names = [name.strip() for name in names]
    if asked is not None:
        if absent := [name for name in asked if name not in names]:
            raise DataError(f"{where} has no column {' and '.join(absent)}; found are {', '.join(names)[:200]}")
        chosen = [names.index(name) for name in asked]
    elif set(languages) <= set(names):
        chosen = [names.index(name) for name in languages]
    elif len(names) > 1 and all(_LANGUAGE.fullmatch(name) for name in names[:2]):
        chosen = [0, 1]
    else:
        found = " and ".join(repr(name[:20]) for name in names[:2])
        raise DataError(
            f"{where} must name its columns, tab-separated, as in 'en<TAB>ko<TAB>domain'; found is {found}. "
            "Name the two in the recipe where they are called otherwise: FILE[COLUMN,COLUMN]"
        )
    rest = {
        _FIELDS[name.lower().replace("_", " ")]: at
        for at, name in enumerate(names)
        if name.lower().replace("_", " ") in _FIELDS and at not in chosen
    }
    return {"source": chosen[0], "target": chosen[1], **rest}


def _hub_pairs(name: str, asked: tuple[str, str] | None, languages: tuple[str, str], tally: Tally) -> Iterator[Pair]:
    hub = locate(name).hub
    if hub is None:
        raise DataError(f"{name} is no data set of the hub; name a .tsv file or hub:OWNER/NAME")
    rows = open_hub(hub)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{name} holds no row; name another split or configuration")
    names = list(first)
    columns = _columns(name, names, asked, languages)
    values = ([str(row.get(n) or "") for n in names] for row in chain([first], rows))
    return _pairs(enumerate(values, start=1), columns, Pair("", "", origin=name), hub.dataset, tally)


def _fields(line: bytes | None) -> list[str] | str:
    """The columns of a line, or why it has none."""
    if line is None:
        return "longer than 64 MiB"
    try:
        return line.decode("utf-8").split("\t")
    except UnicodeDecodeError:
        return "invalid UTF-8"


def _pairs(
    records: Iterable[tuple[int, list[str] | str]], columns: dict[str, int], plain: Pair, file: str, tally: Tally
) -> Iterator[Pair]:
    for number, values in records:
        made = values if isinstance(values, str) else _pair(values, columns, plain)
        if isinstance(made, str):
            tally.drop(made, f"{file}:{number}", file)
        else:
            tally.keep(file)
            yield made


def _pair(values: list[str], columns: dict[str, int], plain: Pair) -> Pair | str:
    """Make an entry of a line's columns, or say why not."""
    if any("\0" in value for value in values):
        return "NUL character"
    if max(columns["source"], columns["target"]) >= len(values):
        return "missing column"
    given = {name: _cleaned(values[at]) for name, at in columns.items() if at < len(values)}
    if not given["source"] or not given["target"]:
        return "empty"
    return replace(plain, **{name: value for name, value in given.items() if value})


def _cleaned(value: str) -> str:
    return " ".join(clean_text(value).split())
