"""Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM): new pieces and their merges, after all merges of the base.

A merge here is a rule of its own, not a consequence of the vocabulary as in SentencePiece: each new piece brings
the one merge that makes it. All base merges come first, so a text is cut as by the base and then made coarser.
Pieces are spelt in GPT-2's 256 letters: Radford et al., 2019, https://github.com/openai/gpt-2 (`encoder.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.spelling import is_byte_level
from vocabgraft.tokenizer.tokenizer_json import Raw, ids_of, merges_of, put_pieces, read_raw, with_merges
from vocabgraft.tokenizer.train import Candidate


def read_byte_level(folder: Path) -> Raw:
    """Parse the tokenizer.json of a byte-level BPE tokenizer. Raises TokenizerError for any other kind."""
    raw = read_raw(folder)
    path = folder / "tokenizer.json"
    if not is_byte_level(load_tokenizer(folder)):
        raise TokenizerError(
            f"{path}: BPE, but not byte-level, and no tokenizer.model beside it; put the tokenizer.model of the base "
            "into the folder"
        )
    affixes = [k for k in ("continuing_subword_prefix", "end_of_word_suffix") if raw["model"].get(k)]
    if affixes:
        raise TokenizerError(
            f"{path}: pieces with a {affixes[0]} (as CLIP has) cannot be expanded; choose another base"
        )
    return raw


def graft_pieces(raw: Raw, pieces: Sequence[Candidate], ids: Sequence[int]) -> Raw:
    """The tokenizer with `pieces[i]` at `ids[i]` and their merges at the end, in order.

    Raises TokenizerError for a piece whose merge is missing, or needs a piece that is not there.
    """
    known = set(ids_of(raw))
    for candidate in pieces:
        _check_merge(candidate, known)
        known.add(candidate.piece)
    grown = put_pieces(raw, {i: c.piece for i, c in zip(ids, pieces, strict=True)})
    return with_merges(grown, [*merges_of(grown), *(c.merge for c in pieces)])


def _check_merge(candidate: Candidate, known: set[str]) -> None:
    if "".join(candidate.merge) != candidate.piece or "" in candidate.merge:
        raise TokenizerError(f"piece {candidate.piece!r}: its merge {candidate.merge} does not make it; train it again")
    lost = [part for part in candidate.merge if part not in known]
    if lost:
        raise TokenizerError(
            f"piece {candidate.piece!r}: its merge needs {lost[0]!r}, neither in the base nor an earlier new piece; "
            "keep pieces in the order in which they were learnt"
        )


def write_slow_files(raw: Raw, base: Path, out: Path) -> None:
    """Write `vocab.json` and `merges.txt` anew if the base has them: slow tokenizers read these and nothing else."""
    if (base / "vocab.json").is_file():
        (out / "vocab.json").write_text(json.dumps(raw["model"]["vocab"], ensure_ascii=False), "utf-8")
    if (base / "merges.txt").is_file():
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges_of(raw))]
        (out / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
