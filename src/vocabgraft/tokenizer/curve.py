"""Is it worth it? What k new pieces save on a text, where more of them stop paying, and the answer in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import regex
from tokenizers import Tokenizer

from vocabgraft.tokenizer.count import WordCounts, token_counts
from vocabgraft.tokenizer.merges import Ints, Merge, replay_merges
from vocabgraft.tokenizer.train import Candidate, runs_of_script

SIZES = (512, 1024, 2048, 4096, 6143, 8192, 10_000, 16_384)
_WORTH_IT, _LITTLE = 0.10, 0.03  # share of tokens saved


def knee(saved: Sequence[int] | Ints) -> int:
    """How many of the first merges to take: the point of the curve furthest above the line from its start to its end.

    saved: tokens each merge saves. (Satopää et al., "Finding a 'Kneedle' in a Haystack", 2011, section III.)
    """
    if not len(saved):
        return 0
    total = np.cumsum(np.asarray(saved, np.float64))
    straight = total[-1] * np.arange(1, len(total) + 1) / len(total)
    return int(np.argmax(total - straight)) + 1


def curve(
    base: Tokenizer,
    candidates: Sequence[Candidate],
    counts: WordCounts,
    script: regex.Pattern[str],
    *,
    cross_word: bool,
) -> Ints:
    """Tokens that each candidate saves on counted text, (candidates,) int64.

    Exact for candidates as they were learnt: their merges are applied in order to the base's own tokens.
    """
    ids, lengths, times = runs_of_script(base, counts, script, cross_word=cross_word)
    names = base.get_vocab(with_added_tokens=True)
    first = max(names.values()) + 1
    merges = []
    for n, candidate in enumerate(candidates):
        left, right = (names[p] for p in candidate.merge)
        names[candidate.piece] = first + n
        merges.append(Merge(left, right, first + n, candidate.count))
    return replay_merges(ids, lengths, times, merges)


@dataclass(frozen=True)
class Advice:
    """What expanding would do for one text (domain). Tokens are counts; shares are of the base's tokens."""

    domain: str
    bytes: int
    words: int
    tokens: int
    tokens_per_word: float
    saved: dict[int, float]
    knee: int
    saved_at_knee: float
    tokens_saved_per_mb_of_rows: float
    verdict: str

    def text(self) -> str:
        """The verdict, and the figures it rests on."""
        sizes = ", ".join(f"{k:,}: {share:.1%}" for k, share in self.saved.items())
        return (
            f"{self.verdict}.\n  {self.bytes / 1e6:.2f} MB held out, {self.tokens_per_word:.2f} tokens a word now; "
            f"saved by pieces: {sizes or 'fewer than 512 learnt'}; "
            f"{self.tokens_saved_per_mb_of_rows:,.0f} tokens saved per MB of rows"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def advise(
    domain: str, base: Tokenizer, counts: WordCounts, saved: Ints, *, row_bytes: int, sizes: Sequence[int] = SIZES
) -> Advice:
    """Judge a compression curve.

    row_bytes: what one new row costs in the model's matrices (width x bytes a number, twice if untied).
    """
    tokens = int(token_counts(base, counts).sum())
    frame = counts.frame
    times = frame["count"]
    words = int((frame["word"].str.count_matches(r"\S+").cast(times.dtype) * times).sum())
    size = int((frame["word"].str.len_bytes().cast(times.dtype) * times).sum())
    total = np.cumsum(saved) if len(saved) else np.zeros(1)
    shares = {k: round(float(total[k - 1]) / max(tokens, 1), 4) for k in sizes if k <= len(saved)}
    at = knee(saved)
    best = float(total[-1]) / max(tokens, 1)
    share = float(total[at - 1]) / max(tokens, 1) if at else 0.0
    per_mb = float(total[at - 1]) / (at * row_bytes / 1e6) if at else 0.0
    per_word = tokens / max(words, 1)
    return Advice(
        domain, size, words, tokens, round(per_word, 3), shares, at, round(share, 4), round(per_mb, 1),
        _verdict(best, share, at, len(saved), per_word),
    )  # fmt: skip


def _verdict(best: float, share: float, at: int, most: int, per_word: float) -> str:
    if best < _LITTLE:
        return (
            f"no: {most:,} new pieces save {best:.1%} of the tokens; the base already spells this text in "
            f"{per_word:.2f} tokens a word"
        )
    if best < _WORTH_IT:
        return f"hardly: {most:,} new pieces save {best:.1%} of the tokens; training rows costs more than it returns"
    more = f"; {most:,} save {best:.1%}" if at < most else ""
    return f"yes: {at:,} new pieces save {share:.1%} of the tokens, and each after that less than the average{more}"
