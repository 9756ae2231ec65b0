"""Rows of CSV and Parquet files: what is damaged costs itself, and what is missing is told."""

import csv
import gzip
import io

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.corpus import tables
from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.corpus.tables import csv_rows, parquet_rows
from vocabgraft.errors import DataError


def rows(tmp_path, content: bytes | str, name: str = "a.csv"):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return [(n, row if isinstance(row, str) else row["text"]) for n, row in csv_rows(tmp_path / name)]


def test_rows_are_known_by_the_line_they_begin_in(tmp_path) -> None:
    assert rows(tmp_path, 'id,text\n1,"a\nb"\n\n2,"c ""d"", e"\n') == [(2, "a\nb"), (5, 'c "d", e')]


def test_a_packed_table_is_read_like_a_plain_one(tmp_path) -> None:
    assert rows(tmp_path, gzip.compress(b"text\r\na\r\n"), "a.csv.gz") == [(2, "a")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1,\xff", "invalid UTF-8"),
        (b"\xff,a", "invalid UTF-8"),
        (b"1,a,b", "invalid CSV"),
        (b"1", "invalid CSV"),
        (b'1,"never closed', "invalid CSV"),
        (b'1,"a"b', "invalid CSV"),
    ],
)
def test_a_hostile_row_costs_itself(tmp_path, line: bytes, reason: str) -> None:
    content = b'id,text\n1,a\n%s\n2,b\n3,"c"\n4,"d\ne"\n' % line
    assert rows(tmp_path, content) == [(2, "a"), (3, reason), (4, "b"), (5, "c"), (6, "d\ne")]


def test_a_row_beyond_the_limit_is_dropped_not_held(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "MAX_LINE_BYTES", 20)
    monkeypatch.setattr(tables, "read_lines", lambda path: iter([(1, b"text"), (2, None), (3, b"b")]))
    assert rows(tmp_path, "") == [(2, "longer than 64 MiB"), (3, "b")]


@pytest.mark.parametrize("content", ["", "\n", "text\n"])
def test_a_table_without_rows_holds_none(tmp_path, content: str) -> None:
    assert rows(tmp_path, content) == []


def test_a_table_without_text_is_refused_with_its_columns(tmp_path) -> None:
    with pytest.raises(DataError, match="no column text, content, body; found are id, title"):
        rows(tmp_path, "id,title\n1,a\n")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1), max_size=5))
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, texts) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([["id", "text"], *([n, t] for n, t in enumerate(texts))])
    path = tmp_path_factory.getbasetemp() / "h.csv"
    path.write_bytes(out.getvalue().encode())
    assert [row["text"] for _, row in csv_rows(path)] == texts


def test_a_parquet_file_that_gives_other_rows_than_it_announces_is_refused(tmp_path, monkeypatch) -> None:
    pl.DataFrame({"text": ["a", "b", "c"]}).write_parquet(tmp_path / "a.parquet")
    real = pl.LazyFrame.slice
    monkeypatch.setattr(pl.LazyFrame, "slice", lambda self, at, n: real(self, at, 0 if at else 2))
    with pytest.raises(DataError, match="announces 3 rows and gives 2"):
        list(parquet_rows(tmp_path / "a.parquet"))


def test_a_reader_that_panics_is_a_sentence_too(tmp_path, monkeypatch) -> None:
    def panics(*args):
        raise pl.exceptions.PanicException("index out of bounds")

    pl.DataFrame({"text": ["a"]}).write_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(pl, "scan_parquet", panics)
    with pytest.raises(DataError, match="not a whole Parquet file"):
        list(read_source(str(tmp_path / "a.parquet"), language="", license="", tally=Tally()))
