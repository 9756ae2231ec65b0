"""Rows of Parquet and CSV files, each with its place, or the reason why it cannot be read."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from vocabgraft.corpus.lines import MAX_LINE_BYTES, read_lines
from vocabgraft.corpus.source import TEXT_FIELDS
from vocabgraft.errors import DataError

# Rows of a Parquet file held at once.
_BATCH = 1024
_WANTED = (*TEXT_FIELDS, "id", "source", "license", "licence")
Line = tuple[int, bytes | None]


def parquet_rows(path: Path, columns: Collection[str] = ()) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (row number from 1, row); DataError for a file that is damaged or gives other rows than it announces.

    columns: what a known source makes its text of, whatever its capitals.
    """
    import polars as pl

    try:
        frame = pl.scan_parquet(path)
        names = frame.collect_schema().names()
        _check_text(path, names, columns)
        wanted = {*_WANTED, *map(str.casefold, columns)}
        number, announced = 0, frame.select(pl.len()).collect().item()
        while (
            rows := frame.select([n for n in names if n.casefold() in wanted]).slice(number, _BATCH).collect()
        ).height:
            for row in rows.iter_rows(named=True):
                number += 1
                yield number, row
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as e:
        raise DataError(f"{path} is not a whole Parquet file ({str(e).splitlines()[0]}); copy it again") from e
    if number != announced:
        raise DataError(f"{path} announces {announced} rows and gives {number}: it is damaged; copy it again")


def csv_rows(path: Path, columns: Collection[str] = ()) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Yield (first line, row or reason to drop it) of a CSV file with a header; quoted fields may hold line ends.

    A quote that does not close costs its line alone: the lines behind it are read again as rows of their own.
    """
    records = _csv_records(path)
    header = next(records, (1, [""]))[1]
    names = [] if isinstance(header, str) else [name.strip() for name in header]
    if names != [""]:
        _check_text(path, names, columns)
    for number, fields in records:
        if isinstance(fields, str):
            yield number, fields
        elif len(fields) != len(names):
            yield number, "invalid CSV"
        else:
            yield number, dict(zip(names, fields, strict=True))


def _csv_records(path: Path) -> Iterator[tuple[int, list[str] | str]]:
    lines, waiting = read_lines(path), deque[Line]()
    csv.field_size_limit(MAX_LINE_BYTES)
    while True:
        taken: list[Line] = []
        try:
            fields = next(csv.reader(_taken(lines, waiting, taken), strict=True))
        except StopIteration:
            return
        except csv.Error:
            waiting.extendleft(reversed(taken[1:]))
            yield taken[0][0], "longer than 64 MiB" if taken[0][1] is None else "invalid CSV"
        else:
            if fields:
                yield taken[0][0], fields if _is_text(fields) else "invalid UTF-8"


def _taken(lines: Iterator[Line], waiting: deque[Line], taken: list[Line]) -> Iterator[str]:
    """Hand the lines of a record to the csv reader, bad bytes as lone surrogates, and remember them."""
    size = 0
    while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
        taken.append(line)
        size += len(line[1] or b"")
        if line[1] is None or size > MAX_LINE_BYTES:
            raise csv.Error
        yield line[1].decode("utf-8", "surrogateescape") + "\n"


def _is_text(fields: list[str]) -> bool:
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_text(path: Path, names: list[str], columns: Collection[str]) -> None:
    known = bool(columns) and {*map(str.casefold, columns)} <= {*map(str.casefold, names)}
    if not known and not set(names) & set(TEXT_FIELDS):
        other = f" and not all of {', '.join(columns)}" if columns else ""
        raise DataError(f"{path} has no column {', '.join(TEXT_FIELDS)}{other}; found are {', '.join(names)[:200]}")
