"""The base's own `tokenizer.json`, kept as it is except for pieces put at ids and the merges that make them.

Normaliser, pre-tokenizer, post-processor, decoder, flags of added tokens and the spelling of merges all stay.
A trap of `tokenizers`: an added token that is not in `model.vocab` is numbered after the vocabulary when the file
is read, so it moves as soon as the vocabulary grows. Then all of them are written into `model.vocab` at their ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vocabgraft.errors import TokenizerError

Raw = dict[str, Any]
"""A parsed tokenizer.json."""
Pair = tuple[str, str]
"""What a merge joins."""


def read_raw(folder: Path) -> Raw:
    """Parse `tokenizer.json` of a folder. Raises TokenizerError unless its model is BPE."""
    path = folder / "tokenizer.json"
    try:
        raw: Raw = json.loads(path.read_text("utf-8"))
        model = raw["model"]
        raw["added_tokens"] = raw.get("added_tokens") or []
        kind = model.get("type") or ("BPE" if "merges" in model else "unknown")
    except OSError as e:
        raise TokenizerError(f"{path}: cannot be read ({e.strerror}); a folder with tokenizer.json is needed") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise TokenizerError(f"{path}: not a tokenizer ({type(e).__name__}: {e})") from e
    if kind != "BPE":
        raise TokenizerError(
            f"{path}: its model is {kind}; pieces are made by merges, which only BPE has. Choose a base with a BPE "
            "tokenizer (Gemma, Llama, Qwen, Mistral, SmolLM)"
        )
    return raw


def write_raw(raw: Raw, path: Path) -> None:
    """Write a parsed tokenizer.json; the same content gives the same bytes."""
    path.write_text(json.dumps(raw, ensure_ascii=False, separators=(",", ":")), "utf-8")


def ids_of(raw: Raw) -> dict[str, int]:
    """Token -> id as the file says, added tokens included. Where the two differ, the vocabulary is right."""
    added: dict[str, int] = {t["content"]: t["id"] for t in raw["added_tokens"]}
    vocab: dict[str, int] = raw["model"]["vocab"]
    return added | vocab


def merges_of(raw: Raw) -> list[Pair]:
    """The merge list as pairs, best first."""
    return [_pair(m) for m in raw["model"]["merges"]]


def _pair(merge: str | Sequence[str]) -> Pair:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def put_pieces(raw: Raw, pieces: Mapping[int, str]) -> Raw:
    """The same tokenizer with pieces at ids; a placeholder that stood there goes, with merges that spelt it.

    Raises TokenizerError for a piece that exists already.
    """
    known = ids_of(raw)
    twice = [p for p in pieces.values() if p in known]
    if twice or len(set(pieces.values())) < len(pieces):
        raise TokenizerError(f"pieces {twice[:5] or 'given twice'} are in the vocabulary; select_pieces drops such")
    gone = {token for token, i in known.items() if i in pieces}
    added = [t for t in raw["added_tokens"] if t["content"] not in gone]
    vocab = {p: i for p, i in raw["model"]["vocab"].items() if p not in gone} | {p: i for i, p in pieces.items()}
    if len(vocab) != len(raw["model"]["vocab"]):
        vocab = {t["content"]: t["id"] for t in added} | vocab
    model = raw["model"] | {"vocab": dict(sorted(vocab.items(), key=lambda row: row[1]))}
    if gone:
        model["merges"] = [m for m in model["merges"] if not _spells(_pair(m), gone)]
    return raw | {"added_tokens": added, "model": model}


def _spells(pair: Pair, gone: set[str]) -> bool:
    left, right = pair
    return left in gone or right in gone or left + right in gone


def with_merges(raw: Raw, merges: Iterable[Pair]) -> Raw:
    """The same tokenizer with this merge list, spelt as before: pairs, or 'a b' in one string."""
    before = raw["model"]["merges"]
    in_one = bool(before) and isinstance(before[0], str)
    spelt = [f"{a} {b}" if in_one else [a, b] for a, b in merges]
    return raw | {"model": raw["model"] | {"merges": spelt}}
