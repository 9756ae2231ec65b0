r"""Pages of WARC archives (ISO 28500) and their texts: .warc, .wet and their .gz.

A record is cut out here, by its Content-Length and the `\r\n\r\nWARC/` behind it, and only then handed to warcio, which
reads headers and chunks: by itself warcio ends quietly where a gzip member is damaged or cut off. Where the length
leads astray, that record alone is lost, and the next one is looked for. HTML becomes text by trafilatura, which keeps
the article and drops menus (FineWeb-2's extractor, with the same leaning to precision); text records of a .wet are
read as they are. Records that hold no page (requests, metadata, errors, images) are counted, as all others are.
"""

from __future__ import annotations

import codecs
import io
import logging
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vocabgraft.corpus.lines import MAX_LINE_BYTES, read_blocks
from vocabgraft.errors import DataError

_NEXT = b"\r\n\r\nWARC/"
_MAX_HEADER = 64 << 10
_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d{1,18})[ \t]*\r?$")
_CHARSET = re.compile(rb"""(?i)charset\s*=\s*["']?\s*([\w.:-]+)""")
_BAD = "invalid record"
_NO_PAGE = "no page"
# What browsers read under a label is wider than what the label says.
_WIDER = {"euc_kr": "cp949", "iso8859-1": "cp1252", "ascii": "utf-8", "shift_jis": "cp932", "gb2312": "gb18030"}
Row = Mapping[str, Any] | str


def web_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (record from 1, row with its text, or reason to drop it); DataError for a damaged or truncated archive."""
    page_text = _page_reader()
    for number, record in enumerate(_records(path), start=1):
        yield number, record if isinstance(record, str) else page_text(record)


def _records(path: Path) -> Iterator[bytes | str]:
    """The bytes of each record, or why it is none."""
    blocks = read_blocks(path)
    held = bytearray()
    if _fill(held, blocks, 5) and not held.startswith(b"WARC/"):
        raise DataError(f"{path} is no WARC archive: it begins with {bytes(held[:20])!r}")
    while _fill(held, blocks, 1):
        if held[0] in b"\r\n":
            del held[0]
        else:
            yield _first(path, held, blocks)


def _first(path: Path, held: bytearray, blocks: Iterator[bytes]) -> bytes | str:
    """Take one record and the line ends behind it off what is held."""
    while (end := held.find(b"\r\n\r\n")) < 0 and len(held) < _MAX_HEADER and _fill(held, blocks, len(held) + 1):
        pass
    length = _LENGTH.search(held, 0, end) if end >= 0 else None
    if length is None:
        return _skip(path, held, blocks, 0 if end >= 0 else sys.maxsize)
    size = end + 4 + int(length[1])
    if size > MAX_LINE_BYTES:
        _skip(path, held, blocks, size)
        return "longer than 64 MiB"
    if not _ends_at(held, blocks, size):
        return _skip(path, held, blocks, size)
    record = bytes(held[:size])
    del held[: size + 4]
    return record


def _ends_at(held: bytearray, blocks: Iterator[bytes], size: int) -> bool:
    """Tell whether the next record begins there. One byte may differ: it is the next one's damage, not this one's."""
    if not _fill(held, blocks, size + len(_NEXT)):
        return len(held) >= size and not held[size:].strip()
    return sum(a != b for a, b in zip(held[size : size + len(_NEXT)], _NEXT, strict=False)) <= 1


def _skip(path: Path, held: bytearray, blocks: Iterator[bytes], claimed: int) -> str:
    """Pass over a record whose length cannot be trusted; DataError where the file ends before one that claims more."""
    passed = 0
    while (at := held.find(_NEXT)) < 0:
        gone = max(0, len(held) - len(_NEXT))
        passed += gone
        del held[:gone]
        if not _fill(held, blocks, len(held) + 1):
            if passed + len(held) < claimed:
                raise DataError(f"{path} is truncated: it ends within a record; copy or download it again")
            held.clear()
            return _BAD
    del held[: at + 4]
    return _BAD


def _fill(held: bytearray, blocks: Iterator[bytes], size: int) -> bool:
    """Hold at least so many bytes; False where the file ends before."""
    while len(held) < size:
        block = next(blocks, None)
        if block is None:
            return False
        held += block
    return True


def _page_reader() -> Any:
    """The function from a record's bytes to a row, with its libraries loaded."""
    try:
        from trafilatura import extract
        from warcio.bufferedreaders import ChunkedDataReader
        from warcio.recordloader import ArcWarcRecordLoader
    except ImportError as e:
        raise DataError(
            f"reading WARC archives needs warcio and trafilatura ({e}): pip install 'vocabgraft[web]'"
        ) from e
    loader = ArcWarcRecordLoader(arc2warc=False)
    for name in ("trafilatura", "warcio"):  # they tell addresses; what they could not read is counted here
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def read(record: bytes) -> Row:
        try:
            found = loader.parse_record_stream(io.BytesIO(record), known_format="warc", no_record_parse=True)
            kind, body, charset = _body(found, loader.http_parser, ChunkedDataReader)
        except Exception:  # whatever a parser of headers raises at bytes that are none
            return _BAD
        if kind is None:
            return _NO_PAGE
        text = _decoded(body, charset)
        if text is None:
            return "invalid encoding"
        if "html" in kind:
            text = extract(text, favor_precision=True, include_comments=False) or ""
        return {"text": text}

    return read


def _body(record: Any, http_parser: Any, chunked: Any) -> tuple[str | None, bytes, str]:
    """Content type (None: no page), body and what its header says of letters; raises where the body is damaged."""
    if record.rec_type == "conversion":
        return "text/plain", record.raw_stream.read(), "utf-8"
    if record.rec_type != "response" or not (record.content_type or "").startswith("application/http"):
        return None, b"", ""
    http = http_parser.parse(record.raw_stream)
    if http.get_statuscode() != "200":
        return None, b"", ""
    header = http.get_header("content-type") or ""
    kind = header.partition(";")[0].strip().lower()
    packed = (http.get_header("content-encoding") or "identity").strip().lower()
    if kind not in ("text/html", "application/xhtml+xml", "text/plain") or packed not in (
        "identity",
        "gzip",
        "deflate",
    ):
        return None, b"", ""
    raw = record.raw_stream.read()
    if (http.get_header("transfer-encoding") or "").strip().lower() == "chunked" and re.match(
        rb"[0-9A-Fa-f]+[;\r]", raw
    ):
        raw = chunked(io.BytesIO(raw), raise_exceptions=True).read()
    charset = _CHARSET.search(header.encode("latin-1", "replace"))
    return kind, raw if packed == "identity" else _unpacked(raw), charset[1].decode() if charset else ""


def _unpacked(raw: bytes) -> bytes:
    """What gzip or deflate packed; crawlers often store it unpacked under the old header."""
    if raw[:2] != b"\x1f\x8b" and raw[:1] != b"\x78":
        return raw
    inside = zlib.decompressobj(32 + zlib.MAX_WBITS)
    data = inside.decompress(raw, MAX_LINE_BYTES)
    if not inside.eof:
        raise ValueError("it ends early, or is longer than 64 MiB")
    return data


def _decoded(body: bytes, charset: str) -> str | None:
    """The text by the header's letters, else by what the page says of itself, else UTF-8; None where that fails."""
    named = charset or (found[1].decode() if (found := _CHARSET.search(body, 0, 4096)) else "utf-8")
    try:
        codec = codecs.lookup(named).name
        return body.decode(_WIDER.get(codec, codec))
    except (LookupError, UnicodeError):
        return None
