"""Count the different words of a corpus once; tokens, fertility, training and selection all follow from it.

Texts are cut by a `WordRule`, so the tokens of a text are the tokens of its words. Counts are integers and are
added up, so neither the order of texts nor the number of threads changes the result. Memory is bounded: what has
been counted goes to disk, split by a hash of the word, and each split is added up on its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from vocabgraft.tokenizer.boundary import WordRule
from vocabgraft.tokenizer.measure import together
from vocabgraft.tokenizer.word_encoder import word_encoder

_BATCH_CHARS = 4_000_000  # of text counted together: 64 MB of word views
_BATCH_TEXTS = 1_000_000
_SHARD_CHARS = 64_000_000
_ROWS_IN_MEMORY = 7_000_000  # of counts before they are added up, and go to disk if still many: about 500 MB
_SPLITS = 32  # by the first five bits of a word's hash
_ENCODED_TOGETHER = 200_000  # words


@dataclass(frozen=True)
class WordCounts:
    """Different words and how often each occurs: columns `word`, `count` (int64).

    They stand in the order of a hash, which the words alone decide.
    """

    rows: pl.LazyFrame
    disk: TemporaryDirectory[str] | None = None
    """What `rows` reads when there are too many for memory; removed together with the last that uses it."""

    def __len__(self) -> int:
        return int(self.rows.select(pl.len()).collect().item())

    @property
    def frame(self) -> pl.DataFrame:
        """All rows in memory."""
        return self.rows.collect()

    @property
    def total(self) -> int:
        """Occurrences of all words."""
        return int(self.rows.select(pl.col("count").sum()).collect().item())

    def having(self, pattern: str) -> WordCounts:
        r"""The words in which a pattern (Rust's regex syntax, e.g. `\p{Hangul}`) is found; these are in memory."""
        return WordCounts(self.rows.filter(pl.col("word").str.contains(pattern)).collect().lazy())

    def batches(self) -> Iterator[tuple[pl.Series, np.ndarray]]:
        """Words and counts, some ten thousand at a time."""
        for start in range(0, len(self), _ENCODED_TOGETHER):
            part = self.rows.slice(start, _ENCODED_TOGETHER).collect()
            yield part["word"], part["count"].to_numpy()

    def save(self, path: Path) -> None:
        """Write as Parquet."""
        self.rows.sink_parquet(path, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> WordCounts:
        """Read what `save` wrote."""
        return cls(pl.read_parquet(path).lazy())

    @classmethod
    def of(cls, counts: dict[str, int]) -> WordCounts:
        """From a mapping."""
        frame = pl.DataFrame({"word": list(counts), "count": list(counts.values())}, schema=_SCHEMA)
        return cls(_added_up([frame]).lazy())


_SCHEMA = {"word": pl.String, "count": pl.Int64}
_HASH = pl.col("word").hash(seed=0)


def count_words(texts: Iterable[str], rule: WordRule, *, threads: int = 1, scratch: Path | None = None) -> WordCounts:
    """Count the words of texts, in one pass.

    Texts are read in batches and counted by `threads` at a time; at most a few million different words are held
    before they are written below `scratch` (default: a temporary folder). The result holds every different word.
    Texts must be encodable in UTF-8 (no lone surrogates): UnicodeEncodeError otherwise.
    """
    held = _Held(TemporaryDirectory(dir=scratch))
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[pl.DataFrame]] = []
        for batch in together(texts, _BATCH_CHARS, _BATCH_TEXTS):
            waiting.append(pool.submit(_count_batch, batch, rule))
            if len(waiting) > threads:
                held.add(waiting.pop(0).result())
        for future in waiting:
            held.add(future.result())
    return held.whole()


def count_shards(
    texts: Iterable[str], rule: WordRule, shards: Path, *, threads: int = 1, scratch: Path | None = None
) -> WordCounts:
    """As `count_words`, but an interrupted count goes on where it was: what was counted is kept below `shards`.

    A shard is a run of texts of about 64 million letters, kept under the hash of the texts and of the rule; so
    changed texts are counted anew, and a file that was not finished is not taken for one that was.
    """
    shards.mkdir(parents=True, exist_ok=True)
    held = _Held(TemporaryDirectory(dir=scratch))
    for some in together(texts, _SHARD_CHARS, _BATCH_TEXTS):
        path = shards / f"{_name(some, rule)}.parquet"
        if not path.is_file():
            partial = path.with_suffix(".partial")
            count_words(some, rule, threads=threads, scratch=scratch).save(partial)
            partial.rename(path)
        held.add(WordCounts.load(path).frame)
    return held.whole()


def _name(texts: list[str], rule: WordRule) -> str:
    digest = hashlib.blake2b(repr(rule.pattern).encode(), digest_size=16)
    for text in texts:
        raw = text.encode()
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def merged(counts: list[WordCounts]) -> WordCounts:
    """Counts of several corpora added up."""
    return WordCounts(_added_up([c.frame for c in counts]).lazy())


def _count_batch(texts: list[str], rule: WordRule) -> pl.DataFrame:
    column = pl.Series("word", texts, dtype=pl.String)
    if rule.pattern is None:
        return _counted(column)
    if not rule.odd:
        return _counted(_matches(column, rule.pattern))
    lines = column.str.split("\n").explode()
    is_odd = pl.any_horizontal(pl.lit(lines).str.contains(literal, literal=True) for literal in rule.odd)
    odd = pl.select(is_odd).to_series()
    parts = lines.filter(~odd).str.split(" ")
    behind_a_space = _counted(parts.list.slice(1).explode().drop_nulls())
    found = [
        _counted(parts.list.first()).filter(pl.col("word") != ""),
        behind_a_space.with_columns(word=pl.lit(" ") + pl.col("word")),
        _counted(_matches(lines.filter(odd), rule.pattern)),
        _counted(_matches(column.filter(column.str.contains("\n", literal=True)), r"\n+")),
    ]
    return pl.concat(found)


def _matches(column: pl.Series, pattern: str) -> pl.Series:
    return column.str.extract_all(pattern).explode().drop_nulls()


def _counted(column: pl.Series) -> pl.DataFrame:
    return column.alias("word").value_counts(name="count").with_columns(pl.col("count").cast(pl.Int64))


class _Held:
    """Counts that are added up in memory while they fit, and in splits on disk when not."""

    def __init__(self, disk: TemporaryDirectory[str]) -> None:
        self.disk = disk
        self.frames: list[pl.DataFrame] = []
        self.rows = 0
        self.parts = 0

    def add(self, frame: pl.DataFrame) -> None:
        self.frames.append(frame)
        self.rows += len(frame)
        if self.rows > _ROWS_IN_MEMORY:
            self.frames = [_added_up(self.frames)]
            self.rows = len(self.frames[0])
            if self.rows > _ROWS_IN_MEMORY // 2:
                self._spill()

    def _spill(self) -> None:
        splits = self.frames[0].with_columns(split=_HASH // (2**64 // _SPLITS))
        for (split,), part in splits.partition_by("split", as_dict=True, include_key=False).items():
            part.write_parquet(self._folder / f"{split:02d}-{self.parts:05d}.parquet", compression="lz4")
        self.frames, self.rows = [], 0
        self.parts += 1

    def whole(self) -> WordCounts:
        if not self.parts:
            self.disk.cleanup()
            return WordCounts(_added_up(self.frames).lazy())
        if self.frames:
            self.frames = [_added_up(self.frames)]
            self._spill()
        for split in range(_SPLITS):
            files = sorted(self._folder.glob(f"{split:02d}-*.parquet"))
            added = _added_up([pl.read_parquet(f) for f in files])
            added.write_parquet(
                self._folder / f"whole-{split:02d}.parquet", compression="lz4", row_group_size=_ENCODED_TOGETHER
            )
            for file in files:
                file.unlink()
        return WordCounts(pl.scan_parquet(self._folder / "whole-*.parquet"), self.disk)

    @property
    def _folder(self) -> Path:
        return Path(self.disk.name)


def _added_up(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Counts of the same word added up, in the order of the words' hash, whose first bits are the split: splits one
    after the other are in order too. Sorting numbers and comparing neighbours takes half as long as grouping words."""
    if not any(map(len, frames)):
        return pl.DataFrame(schema=_SCHEMA)
    rows = pl.concat(frames).with_columns(hash=_HASH).sort("hash")
    repeated = _repeated(rows)
    if (~repeated & (rows["hash"] == rows["hash"].shift())).any():  # two words of one hash
        rows = rows.sort("hash", "word")
        repeated = _repeated(rows)
    firsts = (~repeated).arg_true()
    counts = np.add.reduceat(rows["count"].to_numpy(), firsts.to_numpy())
    return pl.DataFrame({"word": rows["word"].gather(firsts), "count": counts}, schema=_SCHEMA)


def _repeated(rows: pl.DataFrame) -> pl.Series:
    """Whether each row's word is that of the row before, (rows,) bool."""
    return (rows["word"] == rows["word"].shift()).fill_null(False)


def encoded(tokenizer: Tokenizer, counts: WordCounts) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Tokens of the words: (ids of a batch put one after the other, words' lengths in tokens, words' counts)."""
    encode = word_encoder(tokenizer)
    for words, times in counts.batches():
        ids, lengths = encode(words)
        yield ids, lengths, times


def token_counts(tokenizer: Tokenizer, counts: WordCounts) -> np.ndarray:
    """How often each id occurs in the counted corpus, (ids,) int64: what encoding all of it would give."""
    found = np.zeros(max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1, np.int64)
    for ids, lengths, times in encoded(tokenizer, counts):
        found += np.bincount(ids, np.repeat(times, lengths), len(found)).astype(np.int64)
    return found
