"""Word pairs of a bilingual dictionary, which align two embedding spaces (WECHSEL, arXiv 2112.06598, section 3).

A file is tab-separated with a header: `en<TAB>ko[<TAB>domain][<TAB>source][<TAB>license]`, the source language first,
the target second, each by its language code. Titles and sentences teach an alignment nothing, so `filter_pairs` keeps
short entries only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vocabgraft.corpus.clean import clean_text
from vocabgraft.corpus.document import Tally
from vocabgraft.corpus.lines import read_lines
from vocabgraft.corpus.script import script_pattern
from vocabgraft.corpus.source import SAMPLES_LICENSE, missing, samples_folder
from vocabgraft.errors import DataError

SAMPLE = "samples:dictionary"
MAX_WORDS = 4
_LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]+)*")
_SEPARATOR = re.compile(r"[\t\r\n]")


@dataclass(frozen=True, slots=True)
class Pair:
    """An entry: a word of the source language, its translation, and the work it was taken from."""

    source: str
    target: str
    domain: str = ""
    license: str = ""
    origin: str = ""


def read_pairs(path: str | Path, tally: Tally) -> Iterator[Pair]:
    """Stream the entries of a file (also .gz, .zst) or of `samples:dictionary`.

    Entries are cleaned; bad ones are dropped as 'invalid UTF-8', 'NUL character', 'missing column' or 'empty'.
    A missing file or header raises DataError at the call.
    """
    if str(path) == SAMPLE:
        file, plain = samples_folder() / "dictionary.tsv", Pair("", "", license=SAMPLES_LICENSE, origin=SAMPLE)
    elif str(path).startswith("samples:"):
        raise DataError(f"{str(path)!r} is not a dictionary of the package; there is {SAMPLE}")
    else:
        file = Path(path).expanduser()
        plain = Pair("", "", origin=file.name)
    if not file.is_file():
        raise DataError(f"{file} is a folder; name a .tsv file" if file.is_dir() else missing(file))
    lines = read_lines(file)
    columns = _header(file, next(lines, (1, b""))[1])
    return _pairs(lines, columns, file.name, plain, tally)


def filter_pairs(pairs: Iterable[Pair], *, script: str, tally: Tally) -> Iterator[Pair]:
    """Keep new entries of at most four words a side whose target has a character of the script.

    Reasons: 'no target script', 'too long', 'duplicate' (capitals aside). Takes a tally of its own.
    """
    inside = script_pattern(script)
    seen: set[tuple[str, str]] = set()
    for number, pair in enumerate(pairs, start=1):
        key = (pair.source.casefold(), pair.target.casefold())
        if not inside.search(pair.target):
            tally.drop("no target script", f"pair:{number}")
        elif max(len(pair.source.split()), len(pair.target.split())) > MAX_WORDS:
            tally.drop("too long", f"pair:{number}")
        elif key in seen:
            tally.drop("duplicate", f"pair:{number}")
        else:
            seen.add(key)
            tally.keep()
            yield pair


def write_pairs(path: Path, pairs: Iterable[Pair], *, languages: tuple[str, str] = ("en", "ko")) -> int:
    """Write entries so that `read_pairs` gives the same again; return how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, count = path.with_name(path.name + ".partial"), 0
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join((*languages, "domain", "source", "license")) + "\n")
        for pair in pairs:
            values = (pair.source, pair.target, pair.domain, pair.origin, pair.license)
            if any(_SEPARATOR.search(value) for value in values):
                raise DataError(f"pair {pair.source!r} holds a tab or a line end; clean_text takes them out")
            file.write("\t".join(values) + "\n")
            count += 1
    partial.replace(path)
    return count


def _header(file: Path, line: bytes | None) -> dict[str, int]:
    """Return which column holds what: 0 and 1 the two languages, the others by name."""
    names = (line or b"").decode("utf-8", "replace").strip().split("\t")
    if len(names) < 2 or not all(_LANGUAGE.fullmatch(name.strip()) for name in names[:2]):
        found = " and ".join(repr(name[:20]) for name in names[:2])
        raise DataError(
            f"{file}:1 must name its columns, tab-separated, as in 'en<TAB>ko<TAB>domain'; found is {found}"
        )
    return {name.strip().lower(): at for at, name in enumerate(names) if at > 1}


def _pairs(
    lines: Iterable[tuple[int, bytes | None]], columns: dict[str, int], file: str, plain: Pair, tally: Tally
) -> Iterator[Pair]:
    for number, line in lines:
        if line is not None and not line.strip():
            continue
        made = _pair(line, columns, plain)
        if isinstance(made, str):
            tally.drop(made, f"{file}:{number}")
        else:
            tally.keep()
            yield made


def _pair(line: bytes | None, columns: dict[str, int], plain: Pair) -> Pair | str:
    """Make an entry of a line, or say why not."""
    if line is None:
        return "longer than 64 MiB"
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return "invalid UTF-8"
    if "\0" in text:
        return "NUL character"
    values = [" ".join(clean_text(value).split()) for value in text.split("\t")]
    if len(values) < 2:
        return "missing column"
    if not values[0] or not values[1]:
        return "empty"
    given = {name: values[at] for name, at in columns.items() if at < len(values) and values[at]}
    return Pair(
        source=values[0],
        target=values[1],
        domain=given.get("domain", plain.domain),
        license=given.get("license", plain.license),
        origin=given.get("source", plain.origin),
    )
