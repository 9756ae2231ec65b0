"""Hostile inputs: does every record end up in the result or in the account, and every refusal in a sentence?

    python benchmarks/data_hostile.py            each input through the readers, some through steps 02 and 04: a minute
    python benchmarks/data_hostile.py --quick    the readers alone, half of the changed bytes: seconds

The inputs are written here, so each knows how many records it holds and which texts a reader has to give back. An
input is a silent loss where a good record neither came back nor is in the account of its file, where read is not
kept + dropped, or where one bad byte cost more than one record; a crash where anything but a VocabgraftError came
out. Besides, one byte is changed anywhere in files of each format. Where a format has a checksum, or one record's bytes
touch no other's, no more than one record may differ. Parquet has none that polars looks at: where its packed pages
still unpack, texts come back altered and no reader can tell. Such files are counted as `altered`, apart: their records
are all there. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import zstandard

from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.errors import VocabgraftError
from vocabgraft.evaluation.questions import read_questions

TEXTS = [f"{n}번째 글이다. 혈압이 {n * n}이면 소금을 줄이고 매일 걷는 것이 좋다." for n in range(200)]
ROWS = [json.dumps({"id": str(n), "text": t}, ensure_ascii=False).encode() for n, t in enumerate(TEXTS)]
JSONL = b"".join(row + b"\n" for row in ROWS)
PLAIN = "\n".join(TEXTS).encode() + b"\n"
ERROR = "an error"


@dataclass(frozen=True)
class Input:
    """A file (or what stands in its place), and what must come of it: texts given back and records dropped, or ERROR.

    `wanted` (kept, dropped): dropped None where any number will do, so long as kept and dropped are all records.
    """

    name: str
    file: str
    content: bytes | Callable[[Path], object]
    wanted: tuple[int, int] | str


def jsonl(*extra: bytes) -> bytes:
    """The good rows with others in their midst."""
    return b"\n".join([*ROWS[:100], *extra, *ROWS[100:]]) + b"\n"


def parquet(texts: list[str | None], **settings: object) -> bytes:
    out = io.BytesIO()
    pl.DataFrame({"text": texts}, schema={"text": pl.String}).write_parquet(out, **settings)
    return out.getvalue()


def zst(data: bytes, checksum: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=checksum).compress(data)


def table(extra: str = "") -> bytes:
    return ("id,text\n" + extra + "".join(f'{n},"{t}"\n' for n, t in enumerate(TEXTS))).encode()


def damaged(data: bytes, at: float = 0.5) -> bytes:
    place = int(len(data) * at)
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


def linked_to_nothing(path: Path) -> None:
    path.mkdir()
    (path / "a.jsonl").symlink_to("-")


def page(text: str, kind: str = "response", length: int = 0) -> bytes:
    """A record of a WARC archive; `length` is added to what its header says."""
    html = f"<html><body><article><p>{text} {text[::-1]}</p></article></body></html>".encode()
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + html
    if kind == "conversion":
        body = text.encode()
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://example.org/\r\nContent-Type: application/http; "
    return f"{head}msgtype={kind}\r\nContent-Length: {len(body) + length}\r\n\r\n".encode() + body + b"\r\n\r\n"


def wet(*extra: bytes) -> bytes:
    """The good texts as records of text, with others in their midst."""
    records = [page(text, "conversion") for text in TEXTS]
    return b"".join([*records[:100], *extra, *records[100:]])


BAD_BYTE = ROWS[100].replace("글".encode(), "글".encode()[:1] + b"\xff" + "글".encode()[2:])
ALL = (len(ROWS), 0)
ONE = (len(ROWS), 1)
INPUTS = [
    Input("a bad byte in JSONL", "a.jsonl", jsonl(BAD_BYTE), ONE),
    Input("a bad byte in a text file", "a.txt", damaged(PLAIN), (len(TEXTS) - 1, 1)),
    Input("a bad byte in CSV", "a.csv", table().replace("50번".encode(), b"\xff" + "번".encode(), 1), (199, 1)),
    Input("half a character at the end", "a.jsonl", JSONL + b'{"text": "\xea\xb0', ONE),
    Input("a lone surrogate", "a.jsonl", jsonl(rb'{"text": "\ud800"}'), ONE),
    Input("an encoded surrogate", "a.jsonl", jsonl(b'{"text": "\xed\xa0\x80"}'), ONE),
    Input("NUL, as a byte and escaped", "a.jsonl", jsonl(b'{"text": "a\0"}', rb'{"text": "\u0000"}'), (200, 2)),
    Input("a byte-order mark", "a.jsonl", b"\xef\xbb\xbf" + JSONL, ALL),
    Input("CRLF", "a.jsonl", JSONL.replace(b"\n", b"\r\n"), ALL),
    Input("CR alone", "a.jsonl", JSONL.replace(b"\n", b"\r"), ERROR),
    Input("CR alone in a text file", "a.txt", PLAIN.replace(b"\n", b"\r"), ERROR),
    Input("UTF-16", "a.jsonl", JSONL.decode().encode("utf-16"), ERROR),
    Input("UTF-16 without a mark", "a.txt", PLAIN.decode().encode("utf-16-le"), (0, 201)),  # NUL ends it
    Input("a line of 100 MB", "a.jsonl", jsonl(b'{"text": "' + b"a" * 100_000_000 + b'"}'), ONE),
    Input("no line end at the end", "a.jsonl", JSONL[:-1], ALL),
    Input("an empty file", "a.jsonl", b"", (0, 0)),
    Input("empty records", "a.jsonl", jsonl(b'{"text": ""}', b'{"text": " \\n"}', b""), (200, 2)),
    Input("other field names", "a.jsonl", jsonl(b'{"document": "a"}'), ONE),
    Input("numbers, lists, objects as text", "a.jsonl",
          jsonl(b'{"text": 5}', b'{"text": ["a"]}', b'{"text": {"a": "b"}}', b"[1]", b"7"), (200, 5)),
    Input("nesting 100,000 deep", "a.jsonl", jsonl(b"[" * 100_000, b'{"text":' * 100_000), (200, 2)),
    Input("an integer of 5,000 digits", "a.jsonl", jsonl(b'{"text": "a", "id": ' + b"9" * 5000 + b"}"), ONE),
    Input("two objects in a line", "a.jsonl", jsonl(ROWS[0] + ROWS[1]), ONE),
    Input("ids that repeat", "a.jsonl", jsonl(*ROWS[:50]), (250, 0)),
    Input("a truncated .gz", "a.jsonl.gz", gzip.compress(JSONL)[:-9], ERROR),
    Input("a corrupt .gz", "a.jsonl.gz", damaged(gzip.compress(JSONL)), ERROR),
    Input("behind a .gz other bytes", "a.jsonl.gz", gzip.compress(JSONL) + b"garbage", ERROR),
    Input("several .gz in one", "a.jsonl.gz", gzip.compress(JSONL[:999]) + gzip.compress(JSONL[999:]), ALL),
    Input("an empty .gz", "a.jsonl.gz", b"", ERROR),
    Input("a truncated .zst", "a.jsonl.zst", zst(JSONL)[:-9], ERROR),
    Input("a corrupt .zst", "a.jsonl.zst", damaged(zst(JSONL)), ERROR),
    Input("behind a .zst other bytes", "a.jsonl.zst", zst(JSONL) + b"garbage", ERROR),
    Input("several .zst in one", "a.jsonl.zst", zst(JSONL[:999]) + zst(JSONL[999:]), ALL),
    Input("no archive under .zst", "a.jsonl.zst", JSONL, ERROR),
    Input("a truncated .parquet", "a.parquet", parquet(list(TEXTS))[:-20], ERROR),
    Input("a corrupt .parquet", "a.parquet", damaged(parquet(list(TEXTS)), 0.3), ERROR),
    Input("empty rows of a .parquet", "a.parquet", parquet([*TEXTS, None, ""]), (200, 2)),
    Input("a .parquet without text", "a.parquet", parquet(list(TEXTS)).replace(b"text", b"tixt"), ERROR),
    Input("quotes and line ends in CSV", "a.csv", table('x,"a ""b"" c\nd, e"\n'), (201, 0)),
    Input("a quote in CSV that never closes", "a.csv", table('x,"open\n'), ONE),
    Input("a row of CSV with other columns", "a.csv", table("x,y,z\n"), ONE),
    Input("a CSV without text", "a.csv", b"title\na\n", ERROR),
    Input("WARC: records of text", "a.wet", wet(), ALL),
    Input("WARC: a bad byte in a text", "a.wet", wet(page("x", "conversion").replace(b"x\r", b"\xff\r")), ONE),
    Input("WARC: requests and metadata", "a.wet", wet(page("x", "request"), page("x", "metadata")), (200, 2)),
    Input("WARC: a length that is too long", "a.wet", wet(page("x", "conversion", 10**6)), ONE),
    Input("WARC: a length that is too short", "a.wet", wet(page("소금을 줄인다", "conversion", -5)), ONE),
    Input("WARC: a length of 15 digits", "a.wet", wet(page("x", "conversion", 10**15)), ONE),
    Input("WARC: a header without a length", "a.wet", wet(b"WARC/1.0\r\nWARC-Type: conversion\r\n\r\nx\r\n\r\n"), ONE),
    Input("WARC: a record of 100 MB", "a.wet", wet(page("a" * 100_000_000, "conversion")), ONE),
    Input("WARC: pages of HTML that hold nothing", "a.warc", wet(page("")), ONE),
    Input("WARC: a page under letters that are not its own", "a.warc", wet(page("x").replace(b"<p>", b"\xff<p")), ONE),
    Input("WARC: half a record at the end", "a.wet", wet()[:-30], ERROR),
    Input("WARC: a header at the end", "a.wet", wet() + b"WARC/1.0\r\nWARC-Ty", ERROR),
    Input("WARC: a truncated .gz", "a.warc.gz", gzip.compress(wet())[:-9], ERROR),
    Input("WARC: a corrupt member", "a.warc.gz", gzip.compress(wet()) + damaged(gzip.compress(page("x"))), ERROR),
    Input("WARC: a member for each record", "a.wet.gz",
          b"".join(gzip.compress(page(t, "conversion")) for t in TEXTS), ALL),
    Input("WARC: something else under that name", "a.warc", JSONL, ERROR),
    Input("a folder with no file of a known kind", "a", lambda path: path.mkdir(), ERROR),
    Input("a folder with a link to nothing", "a", linked_to_nothing, ERROR),
    Input("a pipe where a file is expected", "a.jsonl", os.mkfifo, ERROR),
    Input("a file that is not there", "a.jsonl", lambda path: None, ERROR),
    Input("a name of 300 letters", "a" * 300 + ".jsonl", lambda path: None, ERROR),
    Input("a file without permission", "a.jsonl", lambda path: (path.write_bytes(JSONL), path.chmod(0)), ERROR),
]  # fmt: skip


if any(find_spec(name) is None for name in ("warcio", "trafilatura")):  # pip install 'vocabgraft[web]'
    INPUTS = [each for each in INPUTS if not each.name.startswith("WARC")]


def written(each: Input, folder: Path) -> Path:
    path = folder / each.file
    if callable(each.content):
        each.content(path)
    else:
        path.write_bytes(each.content)
    return path


def read(path: Path) -> tuple[list[str], Tally] | VocabgraftError:
    tally = Tally()
    try:
        documents = list(read_source(str(path), language="ko", license="", tally=tally))
        tally.check()
    except VocabgraftError as e:
        return e
    return [d.text for d in documents], tally


def judged(each: Input, folder: Path) -> tuple[str, str]:
    """('right', 'silent loss' or 'crash', what was seen)."""
    path, user = written(each, folder), os.geteuid()
    if "permission" in each.name and user == 0:  # root may read every file
        os.seteuid(65534)
    try:
        found = read(path)
    except BaseException as e:
        return "crash", f"{type(e).__name__}: {e}"
    finally:
        os.seteuid(user)
    if isinstance(found, VocabgraftError):
        return "right" if each.wanted == ERROR else "silent loss", " ".join(str(found).split())
    texts, tally = found
    seen = (tally.kept, tally.dropped.total())
    lost = seen != each.wanted or len(texts) != tally.kept
    lost = lost or bool(tally.kept >= len(TEXTS) and set(TEXTS) - set(texts))
    return "silent loss" if lost else "right", f"kept {seen[0]}, dropped {dict(tally.dropped) or 'none'}"


def flipped(folder: Path, tries: int) -> Counter[str]:
    """Silent losses, crashes, refused and altered among files with one byte changed anywhere, in each format.

    At most one record may differ; two where the byte was the line end between them.
    """
    draw, seen = random.Random(0), Counter(files=0, silent_losses=0, crashes=0, refused=0, altered=0)
    whole = {"f.jsonl": JSONL, "f.txt": PLAIN, "f.jsonl.gz": gzip.compress(JSONL), "f.jsonl.zst": zst(JSONL),
             "f.parquet": parquet(list(TEXTS), row_group_size=50), "f.wet": wet()}  # fmt: skip
    if not any(each.file == "a.wet" for each in INPUTS):
        del whole["f.wet"]
    for name, content in whole.items():
        for _ in range(tries):
            path, seen["files"] = folder / name, seen["files"] + 1
            place = draw.randrange(len(content))
            path.write_bytes(content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :])
            try:
                found = read(path)
            except BaseException:
                seen["crashes"] += 1
                continue
            if isinstance(found, VocabgraftError):
                seen["refused"] += 1
                continue
            texts, tally = found
            joined = content[place] == 0x0A  # two records are one now
            if tally.kept + tally.dropped.total() < len(TEXTS) - joined:
                seen["silent_losses"] += 1
            elif len(set(TEXTS) - set(texts)) > 1 + joined:
                seen["altered" if name.endswith(".parquet") else "silent_losses"] += 1
    return seen


def questions(folder: Path) -> tuple[int, int]:
    """Questions with wrong keys: silent losses, crashes."""
    keys = [1, "B", 3, 0, 4, "D", "", "AB", None, True, 1.5, [1], {}, -1, 10**30]
    rows = [{"question": f"{n}?", "options": ["소금", "물", "잠"], "answer": key} for n, key in enumerate(keys)]
    lines = [json.dumps(row).encode() for row in rows] + [
        b"\xff",
        b"{",
        b"[]",
        rb'{"question": "\ud800"}',
        b"[" * 10**5,
    ]
    (folder / "q.jsonl").write_bytes(b"\n".join(lines))
    tally = Tally()
    try:
        kept = read_questions([str(folder / "q.jsonl")], tally)
        tally.check()
    except BaseException:
        return 0, 1
    return int((len(kept), tally.read) != (3, len(lines))), 0


def stepped(folder: Path) -> tuple[int, int, int]:
    """Through steps 02 and 04: inputs, silent losses, crashes."""
    from vocabgraft.machine import detect
    from vocabgraft.pipeline import execute
    from vocabgraft.recipe import load_recipe
    from vocabgraft.run import Run

    tried = lost = crashed = 0
    for each in INPUTS:
        if each.name not in ("a bad byte in JSONL", "a bad byte in a text file", "a corrupt .zst", "ids that repeat"):
            continue
        for allowed in (0, 1):
            here = folder / f"{tried}"
            here.mkdir()
            tried += 1
            sets = [
                f"data.target=['{written(each, here)}']",
                f"data.max_unreadable={allowed}",
                "data.near_duplicates=0",
            ]
            try:
                run = Run.create(here / "run", load_recipe("tiny-cpu", sets), "")
                execute(run, detect(here), until="04")
            except VocabgraftError:
                lost += each.wanted != ERROR and each.wanted[1] <= allowed
                continue
            except BaseException:
                crashed += 1
                continue
            first, last = (run.manifest(key).metrics["target"] for key in ("02-collect", "04-preprocess"))
            out = last["documents"] + last["held_out_documents"]
            lost += (first["kept"], first["read"] - first["kept"]) != each.wanted or first["kept"] != last["read"]
            lost += last["read"] != out + sum(last["dropped"].values())
    return tried, lost, crashed


def main() -> None:
    """Write, read, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the readers alone, half of the changed bytes")
    quick = parser.parse_args().quick
    verdicts: dict[str, str] = {}
    told: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        for n, each in enumerate(INPUTS):
            Path(name).chmod(0o755)
            (folder := Path(name) / f"i{n}").mkdir()
            verdicts[each.name], seen = judged(each, folder)
            print(f"{verdicts[each.name]:12} {each.name}: {seen.replace(name, '')[:150]}")
            told |= {each.name: seen} if each.wanted == ERROR else {}
        tries = 100 if quick else 200
        changed = flipped(Path(name), tries)
        more = [(1, *questions(Path(name))), *([] if quick else [stepped(Path(name))])]
    found = list(verdicts.values())
    print(
        json.dumps(
            {
                "inputs": len(INPUTS) + sum(m[0] for m in more),
                "silent_losses": found.count("silent loss") + changed["silent_losses"] + sum(m[1] for m in more),
                "crashes": found.count("crash") + changed["crashes"] + sum(m[2] for m in more),
                "refused_with_a_sentence": len(told),
                "changed_byte": changed,
            }
        )
    )


if __name__ == "__main__":
    main()
