"""Choose which candidates become pieces: a prefix of the learnt order, new to the base, reachable.

A prefix and not a pick: a longer piece is reached through shorter ones, so dropping one in the middle can make
others unreachable. What is dropped is listed with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer

from vocabgraft.tokenizer.train import Candidate
from vocabgraft.tokenizer.vocabulary import Vocabulary, slots, write_json


@dataclass(frozen=True)
class Selection:
    """The pieces that go in, how often each is used, and what was left out."""

    pieces: tuple[Candidate, ...]
    uses: tuple[int, ...]
    dropped: dict[str, list[str]] = field(default_factory=dict)


def select_pieces(
    base: Vocabulary, candidates: Sequence[Candidate], counts: Counter[str], *, limit: int, reserved_slots: int
) -> Selection:
    """Take the first `limit` usable candidates (at most one for each free slot) and count their uses."""
    known = set(base.pieces)
    dropped: dict[str, list[str]] = {"already a base piece": [], "unreachable": [], "no room": []}
    new: list[Candidate] = []
    for candidate in candidates:
        if candidate.piece in known:
            dropped["already a base piece"].append(candidate.piece)
        else:
            known.add(candidate.piece)
            new.append(candidate)
    room = slots(base, reserved_slots)
    limit = min(limit, len(room))
    dropped["no room"] = [c.piece for c in new[limit:]]
    new = new[:limit]
    while True:
        tokenizer = trial_tokenizer(base.put(room[: len(new)], [c.piece for c in new]))
        lost = set(unreachable(tokenizer, [c.piece for c in new]))
        if not lost:
            break
        dropped["unreachable"] += sorted(lost)
        new = [c for c in new if c.piece not in lost]
    uses = count_uses(tokenizer, counts)
    ids = room[: len(new)]
    return Selection(tuple(new), tuple(uses[i] for i in ids), {k: v for k, v in dropped.items() if v})


def trial_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """A Hugging Face tokenizer of a vocabulary, through the same file writer that ships it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        write_json(vocabulary, path)
        return Tokenizer.from_file(str(path))


def unreachable(tokenizer: Tokenizer, pieces: Iterable[str]) -> list[str]:
    """Pieces whose own text is not encoded as that one piece."""
    pieces = list(pieces)
    texts = [p.replace("▁", " ") for p in pieces]
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [p for p, e in zip(pieces, encodings, strict=True) if e.tokens != [p]]


def count_uses(tokenizer: Tokenizer, counts: Counter[str]) -> Counter[int]:
    """Occurrences of every id in the counted words."""
    uses: Counter[int] = Counter()
    words = sorted(counts)
    for start in range(0, len(words), 20_000):
        chunk = words[start : start + 20_000]
        for word, e in zip(chunk, tokenizer.encode_batch(chunk, add_special_tokens=False), strict=True):
            for i in e.ids:
                uses[i] += counts[word]
    return uses
