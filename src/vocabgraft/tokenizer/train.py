"""Continued BPE: learn new merges over the base tokenizer's own segmentation of the target language.

Every new piece is a run of base pieces, so it is reachable and its parts are known. Base ids are mapped to
private-use characters and handed to the stock Rust trainer of `tokenizers`; only runs of base pieces written
wholly in the target script are offered, so no digit, punctuation or space can get inside a piece.
Idea: Purason et al., arXiv 2512.03989; the restriction to one script is ours and keeps all other text identical.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import regex
from tokenizers import Tokenizer

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.vocabulary import SPACE

_PRIVATE = range(0xF0000, 0x10FFFE)  # planes 15 and 16: 131,070 characters no text uses


@dataclass(frozen=True)
class Candidate:
    """A possible new piece and the base ids that spell it, in order of learning."""

    piece: str
    parts: tuple[int, ...]


def train_pieces(
    base: Tokenizer, counts: Counter[str], *, script: regex.Pattern[str], size: int, min_count: int
) -> list[Candidate]:
    """Learn up to `size` new merges; fewer when no pair occurs `min_count` times.

    `counts` comes from `count_words`. A smaller `size` gives a prefix of a larger one. Raises TokenizerError
    when the corpus has no word of the script.
    """
    runs = _count_runs(base, counts, script)
    if not runs:
        raise TokenizerError("the corpus holds no word of the target script; check data.target and data.script")
    alphabet = sorted({i for run in runs for i in run})
    if len(alphabet) > len(_PRIVATE):
        raise TokenizerError(
            f"{len(alphabet):,} base pieces of the script; at most {len(_PRIVATE):,} can be trained on"
        )
    to_char = {i: chr(c) for i, c in zip(alphabet, _PRIVATE, strict=False)}
    to_id = {c: i for i, c in to_char.items()}
    words = {"".join(to_char[i] for i in run): n for run, n in runs.items()}
    learnt = _learn(words, [to_char[i] for i in alphabet], size, min_count)
    names = {i: base.id_to_token(i) or "" for i in alphabet}
    candidates = []
    for merged in learnt:
        parts = tuple(to_id[c] for c in merged)
        candidates.append(Candidate("".join(names[i] for i in parts), parts))
    return candidates


def _count_runs(base: Tokenizer, counts: Counter[str], script: regex.Pattern[str]) -> Counter[tuple[int, ...]]:
    """Maximal runs of base ids that may merge, with their counts."""
    words = sorted(counts)
    places: dict[int, str] = {}
    runs: Counter[tuple[int, ...]] = Counter()
    for start in range(0, len(words), 20_000):
        chunk = words[start : start + 20_000]
        for word, encoding in zip(chunk, base.encode_batch(chunk, add_special_tokens=False), strict=True):
            for run in _runs(encoding.ids, base, script, places):
                runs[run] += counts[word]
    return runs


def _runs(
    ids: list[int], base: Tokenizer, script: regex.Pattern[str], places: dict[int, str]
) -> Iterator[tuple[int, ...]]:
    """Runs of two and more. A piece with ▁ opens a new one: a text may hold a literal ▁ in the middle of a word."""
    run: list[int] = []
    for i in ids:
        if i not in places:
            places[i] = _place(base.id_to_token(i) or "", script)
        if places[i] != "inside":
            if len(run) > 1:
                yield tuple(run)
            run = []
        if places[i] != "outside":
            run.append(i)
    if len(run) > 1:
        yield tuple(run)


def _place(piece: str, script: regex.Pattern[str]) -> str:
    """Where a base piece may stand in a run: 'first', 'inside' or 'outside' (not at all)."""
    if not all(script.fullmatch(c) for c in piece.removeprefix(SPACE)):
        return "outside"
    return "first" if piece.startswith(SPACE) else "inside"


def _learn(words: dict[str, int], alphabet: list[str], size: int, min_count: int) -> list[str]:
    from tokenizers import models, pre_tokenizers, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + size,
        min_frequency=min_count,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=[],
        show_progress=False,
    )
    # The trainer takes texts, not counts; repeating a word is its way to say how often.
    tok.train_from_iterator((f"{word} " * n for word, n in sorted(words.items())), trainer)
    return [left + right for left, right in json.loads(tok.to_str())["model"]["merges"]]
