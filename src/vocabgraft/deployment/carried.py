"""Everything of a shipped folder that is no weight: what is carried from the base, what from the new tokenizer.

Files that describe tokens come from the expanded tokenizer alone. One stale file of the base beside it is enough to
break a model in silence: llama.cpp prefers an old tokenizer.model, transformers adds old names and moves other ids.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from vocabgraft.errors import TokenizerError
from vocabgraft.models.headers import INDEX
from vocabgraft.tokenizer.measure import load_tokenizer, moved_tokens
from vocabgraft.tokenizer.room import token_ids
from vocabgraft.tokenizer.vocabulary import read_model

_OF_TOKENS = {
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json"),
}
_OF_WEIGHTS = {"config.json", "generation_config.json", "adapter.json", "adapter_config.json", INDEX}
_NOT_CARRIED = {"expansion.json", "sha256.json", "certificate.json", "trainer_state.json"}
_TEMPLATES = {"chat_template.jinja", "chat_template.json"}
_TERMS = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
_NAMING = ("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json")


def carried_files(base: Path, tokenizer: Path) -> dict[str, Path]:
    """Name in the shipped folder -> file: of the tokenizer's folder, and of the base what that one lacks."""
    found = {n: p for n, p in _described(base) if n not in _OF_TOKENS}
    if _has_template(tokenizer):
        found = {n: p for n, p in found.items() if n not in _TEMPLATES and not n.startswith("additional_chat")}
    found |= {n: p for n, p in _described(tokenizer) if n not in _OF_WEIGHTS}
    return {n: p for n, p in found.items() if n not in (_OF_WEIGHTS - {"generation_config.json"})}


def _described(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file of a folder that describes a model or a tokenizer, or says on what terms it comes."""
    paths = [p for p in folder.iterdir() if p.suffix in {".json", ".jinja", ".model"} or p.name in _OF_TOKENS]
    paths += [p for pattern in (*_TERMS, "additional_chat_templates/*.jinja") for p in folder.glob(pattern)]
    for path in sorted(set(paths)):
        if path.is_file() and path.name not in _NOT_CARRIED and ".index." not in path.name:
            yield path.relative_to(folder).as_posix(), path


def _has_template(folder: Path) -> bool:
    return any((folder / n).is_file() for n in _TEMPLATES) or "chat_template" in _json(folder / "tokenizer_config.json")


def prove_tokenizer(base: Path, tokenizer: Path, ids: Collection[int], rows: int) -> None:
    """Raise TokenizerError unless the tokenizer is the base's with other tokens at `ids` alone, and `rows` suffice.

    Then every id that a configuration, a processor or a template of the base names means what it meant.
    """
    after = load_tokenizer(tokenizer)
    tokens = max(after.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    if tokens > rows:
        raise TokenizerError(
            f"{tokenizer}: {tokens:,} tokens for matrices of {rows:,} rows; give the tokenizer that the rows were "
            "trained with, or let the matrices grow (Expansion.rows)"
        )
    nameless = [i for i in ids if after.id_to_token(i) is None]
    if nameless:
        raise TokenizerError(f"{tokenizer}: no token has id {nameless[0]}, which has a new row; these are two models")
    _prove_model_file(tokenizer, ids)
    for name in _NAMING:
        for key, i in token_ids(_json(base / name)):
            if i in ids:
                raise TokenizerError(f"{base / name}: {key} is {i}, which is a new piece; give that piece another id")
    if (base / "tokenizer.json").is_file():
        moved = moved_tokens(load_tokenizer(base), after, list(ids))
        if moved:
            raise TokenizerError(
                f"{tokenizer}: not the tokenizer of {base}: {len(moved):,} of the base's tokens have another id or "
                f"none, the first is {moved[0]!r}"
            )


def _prove_model_file(tokenizer: Path, ids: Collection[int]) -> None:
    """The new pieces are in tokenizer.model too, where there is one."""
    path = tokenizer / "tokenizer.model"
    if not path.is_file() or not ids:
        return
    pieces, named = read_model(path).pieces, load_tokenizer(tokenizer)
    for i in ids:
        here = pieces[i] if i < len(pieces) else None
        if here != named.id_to_token(i):
            raise TokenizerError(
                f"{tokenizer}: id {i} is {here!r} in tokenizer.model and {named.id_to_token(i)!r} in tokenizer.json; "
                "one file is stale: write both anew (vocabgraft.tokenizer.expand)"
            )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except ValueError as e:
        raise TokenizerError(f"{path}: not JSON ({e}); restore the file") from e
    return found if isinstance(found, dict) else {}
