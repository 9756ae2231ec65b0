"""WARC archives: pages become texts, one bad record costs itself, and what is cut off is told."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

pytest.importorskip("warcio")
pytest.importorskip("trafilatura")

from vocabgraft.corpus import web
from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.corpus.web import web_rows
from vocabgraft.errors import DataError

PROSE = "혈압이 높은 사람은 짜게 먹지 않고 날마다 걷는 것이 좋다. 약은 의사와 상의하여 정해진 시간에 먹는다. " * 5


def record(body: bytes, kind: str = "response", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://example.org/\r\n"
        f"Content-Type: application/http; msgtype={kind}\r\nContent-Length: {size}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def page(text: str = PROSE, headers: str = "Content-Type: text/html; charset=utf-8", letters: str = "utf-8") -> bytes:
    html = f"<html><body><nav>차례 로그인</nav><article><p>{text}</p></article></body></html>".encode(letters)
    return f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + html


def read(path: Path, *records: bytes, name: str = "a.warc") -> list[tuple[int, object]]:
    (path / name).write_bytes(b"".join(records))
    return [(n, row if isinstance(row, str) else row["text"]) for n, row in web_rows(path / name)]


def test_a_page_becomes_its_article(tmp_path: Path) -> None:
    [(number, text)] = read(tmp_path, record(page()))
    assert number == 1
    assert text.startswith("혈압이 높은 사람은")
    assert "로그인" not in text


def test_text_records_of_a_wet_are_read_as_they_are(tmp_path: Path) -> None:
    body = "차례\n로그인\n  한 줄".encode()
    assert read(tmp_path, record(b"x: y", "warcinfo"), record(body, "conversion"), name="a.wet") == [
        (1, "no page"),
        (2, "차례\n로그인\n  한 줄"),
    ]


@pytest.mark.parametrize("whole", [False, True], ids=["a member each", "all in one"])
def test_a_packed_archive_is_read_like_a_plain_one(tmp_path: Path, whole: bool) -> None:
    records = [record(page()), record(page(PROSE[::-1]))]
    packed = [gzip.compress(b"".join(records))] if whole else [gzip.compress(r) for r in records]
    assert read(tmp_path, *packed, name="a.warc.gz") == read(tmp_path, *records)


NO_PAGES = [
    record(b"GET / HTTP/1.1\r\n\r\n", "request"),
    record(b"software: x\r\n", "warcinfo"),
    record(b"no HTTP at all", "request"),
    record(b"1.2.3.4").replace(b"application/http; msgtype=response", b"text/dns"),
    record(b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\nno"),
    record(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG"),
    record(page(headers="Content-Type: text/html\r\nContent-Encoding: br")),
]


@pytest.mark.parametrize("other", NO_PAGES)
def test_what_is_no_page_is_counted_as_such(tmp_path: Path, other: bytes) -> None:
    assert next(row for _, row in read(tmp_path, other, record(page()))) == "no page"


def chunks(body: bytes) -> bytes:
    return b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


def test_bodies_are_unpacked_and_put_together(tmp_path: Path) -> None:
    head, _, html = page().partition(b"\r\n\r\n")
    encoded = head + b"\r\nContent-Encoding: gzip\r\n\r\n"
    split = head + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    found = read(
        tmp_path,
        record(page()),
        record(encoded + gzip.compress(html)),
        record(head + b"\r\nContent-Encoding: deflate\r\n\r\n" + zlib.compress(html)),
        record(split + chunks(html)),
        record(split + html),  # already put together by the crawler
    )
    assert len({text for _, text in found}) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (page().partition(b"\r\n\r\n")[0] + b"\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"a" * 99)[:-9],
         "invalid record"),
        (page().partition(b"\r\n\r\n")[0] + b"\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort", "invalid record"),
        (page().replace("짜게".encode(), b"\xff\xfe"), "invalid encoding"),
        (page(headers="Content-Type: text/html; charset=klingon"), "invalid encoding"),
        (b"\x00\x01 no HTTP", "invalid record"),
    ],
)  # fmt: skip
def test_a_damaged_page_costs_itself(tmp_path: Path, body: bytes, reason: str) -> None:
    found = read(tmp_path, record(page()), record(body), record(page()))
    assert found[1] == (2, reason)
    assert found[0][1] == found[2][1] == PROSE.strip()


@pytest.mark.parametrize(
    ("headers", "letters"),
    [
        ("Content-Type: text/html; charset=euc-kr", "cp949"),
        ("Content-Type: text/html", "utf-8"),
        ("Content-Type: text/html; charset=UTF-16", "utf-16"),
    ],
)
def test_a_page_is_read_in_the_letters_it_names(tmp_path: Path, headers: str, letters: str) -> None:
    assert read(tmp_path, record(page(PROSE + "뷁", headers, letters)))[0][1].endswith("뷁")


@pytest.mark.parametrize("length", [0, 7, 10**6, 10**15])
def test_a_wrong_length_costs_its_record_alone(tmp_path: Path, length: int) -> None:
    found = read(tmp_path, record(page()), record(page("다른 글이다. " * 40), length=length), record(page()))
    assert [type(row) for _, row in found] == [str] * 3
    assert (found[0][1], found[2][1]) == (PROSE.strip(), PROSE.strip())
    assert found[1][1] in ("invalid record", "longer than 64 MiB")


@pytest.mark.parametrize("place", range(0, 400, 7))
def test_one_changed_byte_costs_at_most_its_record(tmp_path: Path, place: int) -> None:
    records = [record(page(f"{n}번째 글이다. {PROSE}")) for n in range(3)]
    start = len(records[0]) - 8
    data = bytearray(b"".join(records))
    data[start + place] ^= 0x15
    found = [row for _, row in read(tmp_path, bytes(data))]
    assert len(found) == 3
    good = [f"{n}번째 글이다. {PROSE}".strip() for n in range(3)]
    assert sum(a != b for a, b in zip(found, good, strict=True)) <= 1


@pytest.mark.parametrize("cut", [1, 30, 300, 900])
def test_an_archive_that_ends_early_is_an_error(tmp_path: Path, cut: int) -> None:
    data = record(page()) + record(page())
    with pytest.raises(DataError, match="truncated"):
        read(tmp_path, data[: len(data) - 4 - cut])
    with pytest.raises(DataError, match="truncated or damaged"):
        read(tmp_path, gzip.compress(data)[:-cut], name="a.warc.gz")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no WARC archive: it begins with"):
        read(tmp_path, b"<html>")


def test_every_record_is_in_the_account(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(record(b"a: b", "warcinfo") + record(page()) + record(page(""), length=3))
    tally = Tally()
    documents = list(read_source(str(tmp_path / "a.warc"), language="ko", license="x", tally=tally))
    tally.check()
    assert [d.id for d in documents] == ["a:2"]
    assert tally.dropped == {"no page": 1, "invalid record": 1}
    assert (tally.read, tally.unreadable) == (3, 1)


def test_without_the_libraries_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(DataError, match=r"pip install 'vocabgraft\[web\]'"):
        web._page_reader()
