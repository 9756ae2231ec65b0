"""Choose which candidates become pieces: a prefix of the learnt order, new to the base, reachable, well supported.

A prefix and not a pick: a longer piece is reached through shorter ones, so dropping one in the middle can make
others unreachable. What is dropped is listed with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tokenizers import Tokenizer

from vocabgraft.tokenizer.compare import text_of
from vocabgraft.tokenizer.count import WordCounts, token_counts
from vocabgraft.tokenizer.curve import knee
from vocabgraft.tokenizer.expand import Place, expand_tokenizer
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.spelling import is_byte_level
from vocabgraft.tokenizer.train import Candidate

RARE = 100
"""A piece with fewer uses in the training text has seen too little to learn its row (Hindko, tokenizer/trackb)."""


@dataclass(frozen=True)
class Limits:
    """How many pieces may go in. All of these hold at once.

    pieces: at most so many. rare_share: at most this share of them with fewer than RARE uses. stop_at_knee: none
    after the knee of the compression curve. unwanted: pieces never to be taken, by reason.
    """

    pieces: int
    rare_share: float = 1.0
    stop_at_knee: bool = False
    unwanted: dict[str, Collection[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """The pieces that go in, how often each is used, and what was left out by reason."""

    pieces: tuple[Candidate, ...]
    uses: tuple[int, ...]
    dropped: dict[str, list[str]] = field(default_factory=dict)

    @property
    def rare_share(self) -> float:
        """Share of pieces with fewer than RARE uses."""
        return sum(n < RARE for n in self.uses) / max(len(self.uses), 1)


def select_pieces(
    base: Path,
    candidates: Sequence[Candidate],
    counts: WordCounts,
    limits: Limits,
    *,
    place: Place = "slots",
    reserved_slots: int = 99,
    room: int | None = None,
) -> Selection:
    """Take the longest prefix of the candidates that the limits allow, and count its uses with the real tokenizer.

    base: folder of the base tokenizer. room: how many ids are free (None: no bound). counts: the training text.
    """
    tokenizer = load_tokenizer(base)
    known, level = tokenizer.get_vocab(with_added_tokens=True), is_byte_level(tokenizer)
    dropped: dict[str, list[str]] = {}
    new = _wanted(candidates, known, limits.unwanted, dropped)
    most = min(limits.pieces, len(new) if room is None else room)
    if limits.stop_at_knee:
        at = knee([c.count for c in new])
        dropped["after the knee"], new = [c.piece for c in new[at:]], new[:at]
    dropped["no room"], new = [c.piece for c in new[most:]], new[:most]
    while True:
        if level:  # has the learnt merges alone; in SentencePiece every split of a piece is one
            new = _whole(new, known, dropped)
        tokenizer, ids = _trial(base, new, place, reserved_slots)
        lost = set(unreachable(tokenizer, [c.piece for c in new]))
        if lost:
            dropped.setdefault("unreachable", []).extend(sorted(lost))
            new = [c for c in new if c.piece not in lost]
            continue
        uses = token_counts(tokenizer, counts)[ids] if new else np.zeros(0, np.int64)
        kept = _supported(uses, limits.rare_share)
        if kept == len(new):
            break
        dropped.setdefault("too rare", []).extend(c.piece for c in new[kept:])
        new = new[:kept]
    return Selection(tuple(new), tuple(uses.tolist()), {k: v for k, v in dropped.items() if v})


def _wanted(
    candidates: Sequence[Candidate],
    known: Collection[str],
    unwanted: dict[str, Collection[str]],
    dropped: dict[str, list[str]],
) -> list[Candidate]:
    reasons = {"already a base piece": known, **unwanted}
    taken: set[str] = set()
    new = []
    for candidate in candidates:
        reason = next((why for why, pieces in reasons.items() if candidate.piece in pieces), None)
        reason = "learnt twice" if reason is None and candidate.piece in taken else reason
        if reason is not None:
            dropped.setdefault(reason, []).append(candidate.piece)
            continue
        taken.add(candidate.piece)
        new.append(candidate)
    return new


def _whole(candidates: Sequence[Candidate], known: Collection[str], dropped: dict[str, list[str]]) -> list[Candidate]:
    """Those whose two halves are there."""
    there, new = set(known), []
    for candidate in candidates:
        if set(candidate.merge) <= there:
            there.add(candidate.piece)
            new.append(candidate)
        else:
            dropped.setdefault("a half was dropped", []).append(candidate.piece)
    return new


def _supported(uses: np.ndarray, rare_share: float) -> int:
    """How many pieces to try next: all when at most this share has fewer than RARE uses, else fewer by the excess.

    The last learnt go: without them, the pieces they were made of are used more. At least a twentieth at a time,
    because each try costs a tokenizer.
    """
    excess = int((uses < RARE).sum()) - rare_share * len(uses)
    return len(uses) if excess <= 0 else max(0, len(uses) - max(math.ceil(excess), len(uses) // 20))


def _trial(base: Path, pieces: Sequence[Candidate], place: Place, reserved_slots: int) -> tuple[Tokenizer, list[int]]:
    """The tokenizer with these pieces, through the writer that ships it, and their ids."""
    with TemporaryDirectory() as folder:
        made = expand_tokenizer(
            base, pieces, [0] * len(pieces), Path(folder), place=place, reserved_slots=reserved_slots
        )
        return Tokenizer.from_file(str(Path(folder) / "tokenizer.json")), list(made.ids)


def wrong_parts(base: Tokenizer, pieces: Sequence[str], parts: Sequence[Sequence[int]]) -> list[str]:
    """New pieces whose recorded parts are not how the base spells them; of a part of a letter, not its bytes."""
    texts = text_of(base, pieces)
    found = dict(zip(texts, base.encode_batch_fast(list(texts.values()), add_special_tokens=False), strict=True))

    def spells(run: Sequence[int], piece: str) -> bool:
        return (
            found[piece].ids == list(run) if piece in found else "".join(map(str, map(base.id_to_token, run))) == piece
        )

    return [piece for piece, run in zip(pieces, parts, strict=True) if not spells(run, piece)]


def unreachable(tokenizer: Tokenizer, pieces: Iterable[str]) -> list[str]:
    """Pieces whose own text is not encoded as that one piece; parts of a letter have no text and pass."""
    texts = text_of(tokenizer, pieces)
    encodings = tokenizer.encode_batch_fast(list(texts.values()), add_special_tokens=False)
    names = tokenizer.get_vocab(with_added_tokens=True)
    return [p for p, e in zip(texts, encodings, strict=True) if e.ids != [names[p]]]
