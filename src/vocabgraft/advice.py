"""Should this tokenizer be expanded for these texts? Learn on one part, measure on the other, say it in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocabgraft.corpus.document import Tally, held_out, read_source
from vocabgraft.corpus.script import script_pattern
from vocabgraft.errors import DataError
from vocabgraft.tokenizer.boundary import word_rule
from vocabgraft.tokenizer.count import WordCounts, count_words, merged
from vocabgraft.tokenizer.curve import Advice, advise, curve
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.train import train_pieces


@dataclass(frozen=True)
class Measured:
    """Advice for each source (domain) and for all together; what could not be read, by reason."""

    advice: tuple[Advice, ...]
    cut: str
    read: dict[str, Any]

    def text(self) -> str:
        """For people: one paragraph a domain."""
        return "\n".join([f"{a.domain}: {a.text()}" for a in self.advice] + [f"({self.cut})"])

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"advice": [a.as_json() for a in self.advice], "cut": self.cut, "read": self.read}


def measure_sources(
    base: Path,
    sources: Sequence[str],
    *,
    script: str,
    pieces: int = 16_384,
    min_count: int = 5,
    held: float = 0.15,
    row_bytes: int = 2 * 2560,
    threads: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Learn up to `pieces` on the training part of all sources; judge the curve on the held-out part of each.

    Documents are held out by hash, so the answer is the same on every machine. row_bytes: cost of a new row (default:
    the tied matrix of a 4B Gemma 3 in bf16). Raises DataError when a source cannot be read or is too small to hold out.
    """
    tokenizer, pattern = load_tokenizer(base), script_pattern(script)
    rule = word_rule(tokenizer)
    trained: list[WordCounts] = []
    kept: dict[str, WordCounts] = {}
    tallies: dict[str, Any] = {}
    for source in sources:
        say(f"counting {source}")
        tally = Tally()
        trained.append(count_words(_texts(source, Tally(), held, out=False), rule, threads=threads))
        kept[source] = count_words(_texts(source, tally, held, out=True), rule, threads=threads)
        tallies[source] = tally.as_dict()
        if not len(kept[source]):
            raise DataError(f"{source}: no document was held out; give at least a few dozen (paragraphs count)")
    say("learning pieces")
    candidates = train_pieces(
        tokenizer, merged(trained).having(pattern.pattern), script=pattern, size=pieces, min_count=min_count
    )
    everything = {**kept, "all": merged(list(kept.values()))} if len(kept) > 1 else kept
    found = []
    for domain, counts in everything.items():
        say(f"measuring {domain}")
        saved = curve(tokenizer, candidates, counts.having(pattern.pattern), pattern, cross_word=False)
        found.append(advise(domain, tokenizer, counts, saved, row_bytes=row_bytes))
    return Measured(tuple(found), rule.reason, tallies)


def _texts(source: str, tally: Tally, share: float, *, out: bool) -> Iterator[str]:
    documents = read_source(source, language="und", license="not asked", tally=tally)
    return (d.text for d in documents if held_out(d.id, share) == out)
