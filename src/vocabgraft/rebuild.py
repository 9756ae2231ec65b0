"""Build one of our own expansions again from what it says of itself, and compare the files byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from vocabgraft.durable import sha256_file
from vocabgraft.errors import VocabgraftError
from vocabgraft.finding import Finding
from vocabgraft.tokenizer.compare import vocabulary_of
from vocabgraft.tokenizer.expand import Expansion, Place, expand_tokenizer
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.train import Candidate

_NAME = "rebuild"
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")


def rebuilt(base: Path, expanded: Path) -> Finding:
    """Building the expansion again gives the same bytes; for models that are not ours, say that this is unknown."""
    path = expanded / "expansion.json"
    if not path.is_file():
        return Finding(_NAME, "ok", "does not apply: no expansion.json, not built here")
    try:
        expansion = Expansion.load(path)
        with TemporaryDirectory() as place:
            differ = _differences(base, expanded, expansion, Path(place))
    except (VocabgraftError, ValueError, KeyError, TypeError) as e:
        return Finding(_NAME, "fail", f"cannot be built again ({e})", "give the base that it was built from")
    if differ:
        fix = "built by another version, or changed since: expand again and compare"
        return Finding(_NAME, "fail", f"other bytes: {', '.join(differ)}", fix)
    files = [name for name in _FILES if (expanded / name).is_file()]
    return Finding(_NAME, "ok", f"{' and '.join(files)} byte for byte, {len(expansion.ids):,} pieces")


def _differences(base: Path, expanded: Path, expansion: Expansion, scratch: Path) -> list[str]:
    merges = _merges(expanded)
    rows = zip(expansion.pieces, expansion.parts, strict=True)
    pieces = [Candidate(p, parts, merges.get(p, ("", ""))) for p, parts in rows]
    placeholder = load_tokenizer(base).id_to_token(expansion.ids[0]) if expansion.ids else None
    digits = "".join(c for c in placeholder or "" if c.isdigit())
    place: Place = _place(base, expansion)
    again = expand_tokenizer(
        base, pieces, expansion.uses, scratch, place=place, reserved_slots=int(digits) if digits else 99
    )
    differ = ["the ids of new pieces"] if again.ids != expansion.ids else []
    for name in _FILES:
        ours, theirs = scratch / name, expanded / name
        if ours.is_file() and (not theirs.is_file() or sha256_file(ours) != sha256_file(theirs)):
            differ.append(name)
    return differ


def _merges(expanded: Path) -> dict[str, tuple[str, str]]:
    """Piece -> the last merge that makes it; byte-level pieces are put in with theirs."""
    raw = json.loads((expanded / "tokenizer.json").read_text("utf-8"))["model"].get("merges", [])
    pairs = (m.split(" ", 1) if isinstance(m, str) else m for m in raw)
    return {left + right: (left, right) for left, right in pairs}


def _place(base: Path, expansion: Expansion) -> Place:
    """Ids that all follow the base's last one may also be padded rows; the files are then the same."""
    known = set(vocabulary_of(load_tokenizer(base)).values())
    return "append" if expansion.ids and known.isdisjoint(expansion.ids) else "slots"
