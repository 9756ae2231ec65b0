"""Graft pieces onto a base tokenizer: into free ids, so that no id moves and no matrix grows, or after all ids.

Two families: SentencePiece BPE (`tokenizer.model` beside `tokenizer.json`: Gemma, Llama 2), whose two files are
written to agree, and byte-level BPE (`tokenizer.json` alone: Llama 3, Qwen, SmolLM). In both, new pieces come after
every base piece and hold only letters of the target script: text without that script keeps its ids.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.byte_level import graft_pieces, read_byte_level, write_slow_files
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.room import free_ids
from vocabgraft.tokenizer.tokenizer_json import Raw, ids_of, merges_of, put_pieces, read_raw, with_merges, write_raw
from vocabgraft.tokenizer.train import Candidate
from vocabgraft.tokenizer.vocabulary import Vocabulary, read_model, rewrite_model

Place = Literal["slots", "append"]
# To these transformers 5 gives GPT-2's way to cut words, whatever tokenizer.json says (its issue 45812).
_REBUILT = {"GPT2Tokenizer", "GPT2TokenizerFast"}
# Written by the steps that write weights, or written anew here.
_NOT_CARRIED = {"config.json", "generation_config.json", "sha256.json", "vocab.json", "tokenizer.json"}


@dataclass(frozen=True)
class Expansion:
    """What was added: `ids[i]` is the id of `pieces[i]`, which the base spells as `parts[i]`.

    `rows` is how many rows the embedding matrices must have, None where they keep their shape.
    """

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    parts: tuple[tuple[int, ...], ...]
    uses: tuple[int, ...]
    rows: int | None = None

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False), "utf-8")

    @classmethod
    def load(cls, path: Path) -> Expansion:
        """Read what `save` wrote, now or before there was `rows`."""
        raw = json.loads(path.read_text("utf-8"))
        parts = tuple(tuple(p) for p in raw["parts"])
        return cls(tuple(raw["ids"]), tuple(raw["pieces"]), parts, tuple(raw["uses"]), raw.get("rows"))


def expand_tokenizer(
    base: Path,
    pieces: Sequence[Candidate],
    uses: Sequence[int],
    out: Path,
    *,
    place: Place = "slots",
    reserved_slots: int = 99,
) -> Expansion:
    """Write the expanded tokenizer of the base folder into `out`: all its tokenizer files, agreeing with each other.

    `place` 'slots' takes the free ids of `free_ids`, 'append' the ids after all that are in use. Chat template and
    processor files are copied; lists of tokens lose the names of placeholders that are gone. Nothing is written when
    TokenizerError is raised: too little room, a tokenizer that is not BPE, files of the base that disagree.
    """
    model = base / "tokenizer.model"
    raw = read_raw(base) if model.is_file() else read_byte_level(base)
    _check_numbers(base, raw)
    room = free_ids(base, reserved_slots)
    ids, rows = room.append(len(pieces)) if place == "append" else (room.take(len(pieces)), None)
    if model.is_file():
        table = _table(base, raw, room.next_id if max(ids, default=0) >= room.next_id else 0)
        table = table.put(list(ids), [c.piece for c in pieces])
        raw = _as_table(raw, table, {i: table.pieces[i] for i in ids})
        out.mkdir(parents=True, exist_ok=True)
        rewrite_model(model, table, out / model.name)
    else:
        raw = graft_pieces(raw, pieces, ids)
        out.mkdir(parents=True, exist_ok=True)
        write_slow_files(raw, base, out)
    write_raw(raw, out / "tokenizer.json")
    _carry_files(base, out)
    _clean_lists(out, set(ids), raw)
    return Expansion(ids, tuple(c.piece for c in pieces), tuple(c.parts for c in pieces), tuple(uses), rows)


def _table(base: Path, raw: Raw, end: int) -> Vocabulary:
    """The piece table of tokenizer.model, grown to `end` pieces by the tokens that only tokenizer.json knows.

    Gemma 3 4B: `<image_soft_token>` has id 262144 there, and the model takes whatever stands at it for an image.
    """
    table = read_model(base / "tokenizer.model")
    _check_agreement(base, table, raw)
    added = {t["id"]: t for t in raw["added_tokens"]}
    for i in range(len(table), end):
        if i not in added:
            raise TokenizerError(
                f"{base}: ids go up to {end - 1}, but {i} is no token of tokenizer.json, so tokenizer.model cannot "
                "have pieces after it; take place 'slots' and fewer pieces"
            )
        table = table.append_token(added[i]["content"], special=added[i]["special"])
    return table


def _as_table(raw: Raw, table: Vocabulary, new: dict[int, str]) -> Raw:
    """tokenizer.json with the new pieces of the table and every merge that follows from them."""
    raw = put_pieces(raw, new)
    return with_merges(raw, table.weave(merges_of(raw), table.merges(touching=set(new.values()))))


def _check_agreement(base: Path, table: Vocabulary, raw: Raw) -> None:
    known = ids_of(raw)
    for i, piece in enumerate(table.pieces):
        if known.get(piece) != i:
            raise TokenizerError(
                f"{base}: {piece!r} has id {i} in tokenizer.model and {known.get(piece, 'none')} in tokenizer.json; "
                "the two files are of different tokenizers, take both from one source"
            )


def _check_numbers(base: Path, raw: Raw) -> None:
    """Refuse a base whose added tokens get other ids when read than the file says: which did the model learn?"""
    read = load_tokenizer(base).get_vocab(with_added_tokens=True)
    for token, i in ids_of(raw).items():
        if read.get(token) != i:
            raise TokenizerError(
                f"{base}/tokenizer.json: {token!r} has id {i} in the file and {read.get(token, 'none')} when read; "
                "load the base tokenizer with transformers, save it anew, and check it"
            )


def _carry_files(base: Path, out: Path) -> None:
    for path in sorted([*base.iterdir(), *base.glob("additional_chat_templates/*")]):
        if path.suffix in {".json", ".jinja"} and path.name not in _NOT_CARRIED and ".safetensors" not in path.name:
            target = out / path.relative_to(base)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)


def _clean_lists(out: Path, reused: set[int], raw: Raw) -> None:
    """Take re-used ids out of lists of added tokens; transformers would add the old names again and move others.

    A class of transformers that does not read how tokenizer.json cuts words gives way to the one that reads it all.
    """
    config = _read(out / "tokenizer_config.json")
    if config.get("tokenizer_class") in _REBUILT and raw.get("pre_tokenizer", {}).get("type") != "ByteLevel":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if "added_tokens_decoder" in config:
        added = config["added_tokens_decoder"]
        config["added_tokens_decoder"] = {k: v for k, v in added.items() if int(k) not in reused}
    if "vocab_size" in config:
        config["vocab_size"] = len(ids_of(raw))
    _write(out / "tokenizer_config.json", config)
    added = {name: i for name, i in _read(out / "added_tokens.json").items() if i not in reused}
    _write(out / "added_tokens.json", added)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def _write(path: Path, content: dict[str, Any]) -> None:
    if path.is_file():
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
