r"""Numbered lines of bytes from plain, gzip and zstandard files, in bounded memory.

Lines are cut at b"\n" before anything is decoded, so one bad byte costs one line and U+2028 inside a JSON string costs
none. An archive that ends early raises: `zstandard.stream_reader` would hand out the part that is there and stop
without a word, so frames are followed by hand here and each must reach its end mark.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from vocabgraft.errors import DataError

#: A longer line is reported as None instead of being held.
MAX_LINE_BYTES = 64 << 20
_BLOCK = 1 << 20
# zstd can spell 128 KiB in 4 bytes, so what is fed at once bounds what comes out at once (here to 64 MiB at worst).
_ZSTD_FEED = 2 << 10
_BOM = b"\xef\xbb\xbf"


def read_lines(path: Path, *, limit: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes | None]]:
    r"""Yield (line number from 1, line without end mark) of a file; None for a line longer than `limit` bytes.

    CRLF ends and byte-order marks are taken off. A last line without b"\n" counts. Raises DataError when the file
    cannot be read, is UTF-16, has CR alone for line ends, or is a truncated or damaged archive.
    """
    number, size = 1, 0
    held: list[bytes] = []
    for block in read_blocks(path):
        if number == 1 and not held:
            _check_first(path, block)
        *ended, rest = block.split(b"\n")
        for part in ended:
            yield number, _whole(held, part, size, limit)
            number, held, size = number + 1, [], 0
        size += len(rest)
        held.append(rest)
        if size > limit:
            held.clear()
    if size:
        yield number, _whole(held, b"", size, limit)


def _check_first(path: Path, block: bytes) -> None:
    """Refuse what would pass for one long line."""
    if block[:2] in (b"\xff\xfe", b"\xfe\xff") and b"\0" in block:
        raise DataError(f"{path} is UTF-16; UTF-8 is needed: iconv -f UTF-16 -t UTF-8 {path.name}")
    if b"\n" not in block and b"\r" in block.strip():
        raise DataError(f"{path} ends its lines with CR alone; LF is needed: tr '\\r' '\\n' < {path.name}")


def _whole(held: list[bytes], last: bytes, size: int, limit: int) -> bytes | None:
    if size + len(last) > limit:
        return None
    return b"".join([*held, last]).removesuffix(b"\r").removeprefix(_BOM)


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, unpacked, in pieces of any size; DataError as `read_lines` raises it."""
    kinds = {".zst": _zstd_blocks, ".gz": _gzip_blocks}
    try:
        yield from kinds.get(path.suffix, _plain_blocks)(path)
    except OSError as e:
        raise DataError(f"{path} cannot be read ({e.strerror or e})") from e


def _plain_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _gzip_blocks(path: Path) -> Iterator[bytes]:
    if path.stat().st_size == 0:
        raise _damaged(path, "no bytes at all")
    try:
        with gzip.open(path, "rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise _damaged(path, str(e)) from e


def _zstd_blocks(path: Path) -> Iterator[bytes]:
    import zstandard

    frame, frames = None, 0
    with path.open("rb") as file:
        while feed := file.read(_ZSTD_FEED):
            while feed:
                if frame is None:
                    frame, frames = zstandard.ZstdDecompressor().decompressobj(), frames + 1
                try:
                    block = frame.decompress(feed)
                except zstandard.ZstdError as e:
                    raise _damaged(path, str(e)) from e
                if block:
                    yield block
                feed = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    if frame is not None or not frames:
        raise _damaged(path, "the last frame does not end" if frames else "no bytes at all")


def _damaged(path: Path, found: str) -> DataError:
    return DataError(f"{path} is truncated or damaged ({found}); copy or download it again")
