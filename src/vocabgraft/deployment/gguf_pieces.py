"""The tokenizer of a folder as fields of a GGUF file: `llama` (SentencePiece) or `gpt2` (byte-level BPE).

llama.cpp merges SentencePiece pieces by score and byte-level pieces by a list; how a byte-level text is cut into words
it knows by name alone (`tokenizer.ggml.pre`). Its own converter guesses that name from the ids of one fixed text, so it
stops at a tokenizer that learnt Khmer or Bulgarian. Here the name follows from the rule in tokenizer.json, for any
language, and a rule without an exact name is refused: a wrong name raises no error and cuts words differently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.room import read_json
from vocabgraft.tokenizer.tokenizer_json import Raw, ids_of, merges_of, read_raw
from vocabgraft.tokenizer.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
    read_model,
)

UNMERGED_SCORE = -1000.0  # llama.cpp's convention for pieces that take part in no merge
_END_OF_TURN = "<end_of_turn>"

# (words of tokenizer.json's pre-tokenizer, whole words before merges) -> llama.cpp's name for the same cut (its
# llama-vocab.cpp). Names whose pattern there is only near the original (gpt-4o, tekken) are left out.
_CASED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PRE_BY_REGEX = {
    (_CASED + r"\p{N}{1,3}" + _REST, True): "llama-bpe",
    (_CASED + r"\p{N}{1,3}" + _REST, False): "smaug-bpe",
    (_CASED + r"\p{N}" + _REST, False): "qwen2",
    (_CASED.replace(r"\p{L}+", r"[\p{L}\p{M}]+") + r"\p{N}" + _REST.replace(r"^\s\p{L}", r"^\s\p{L}\p{M}"), False): (
        "qwen35"
    ),
}
_PRE_NAMES = ("gpt-2", "smollm", *_PRE_BY_REGEX.values())


@dataclass(frozen=True)
class FolderTokenizer:
    """A folder's tokenizer: how many ids it has, its name for how words are cut, and how it is written.

    `normalises`: it maps letters before cutting (Qwen: NFC) and llama.cpp does not, so it must be given such text.
    """

    size: int
    pre: str
    write: Callable[[Any, str | None], None]
    normalises: str | None = None


def folder_tokenizer(folder: Path) -> FolderTokenizer:
    """Read the tokenizer of a folder: tokenizer.model where there is one, else a byte-level tokenizer.json.

    Raises TokenizerError for any other kind, for one that names a piece or an id twice (llama.cpp would end the
    process), and for words cut in a way whose llama.cpp name is not known here.
    """
    model = folder / "tokenizer.model"
    if model.is_file():
        vocabulary = read_model(model)
        _refuse_twice(list(enumerate(vocabulary.pieces)), model)
        write = partial(write_pieces, vocabulary=vocabulary, space_prefix=_adds_space(model))
        return FolderTokenizer(len(vocabulary), "default", lambda w, t: write(w, chat_template=t))
    raw = read_raw(folder)
    pre = _pre_name(raw, folder)
    added = [(t["id"], t["content"]) for t in raw["added_tokens"]]
    rows = {(i, piece) for piece, i in raw["model"]["vocab"].items()} | set(added)
    _refuse_twice(sorted(rows), folder / "tokenizer.json")
    normaliser = (raw.get("normalizer") or {}).get("type")
    return FolderTokenizer(max(ids_of(raw).values()) + 1, pre, partial(_write_byte_level, raw, folder, pre), normaliser)


def _refuse_twice(rows: list[tuple[int, str]], path: Path) -> None:
    by_id: dict[int, str] = {}
    by_piece: dict[str, int] = {}
    for i, piece in rows:
        if by_id.setdefault(i, piece) != piece:
            raise TokenizerError(
                f"{path}: id {i} is given to {by_id[i]!r} and to {piece!r}; take the file from its source"
            )
        if by_piece.setdefault(piece, i) != i:
            raise TokenizerError(
                f"{path}: {piece!r} has the ids {by_piece[piece]} and {i}; take the file from its source"
            )


def check_two_files(folder: Path) -> None:
    """Raise TokenizerError when tokenizer.model and tokenizer.json of a folder are of different tokenizers.

    The one from before an expansion, left beside the new other, gives a GGUF file without one new piece.
    """
    model = folder / "tokenizer.model"
    if not model.is_file() or not (folder / "tokenizer.json").is_file():
        return
    raw, table = read_raw(folder), read_model(model)
    known, way = ids_of(raw), "the two files are of different tokenizers, take both from one source"
    for i, piece in enumerate(table.pieces):
        if known.get(piece) != i:
            other = known.get(piece, "none")
            raise TokenizerError(
                f"{folder}: {piece!r} has id {i} in tokenizer.model and {other} in tokenizer.json; {way}"
            )
    special = {t["content"] for t in raw["added_tokens"] if t["special"]}
    behind = sorted(piece for piece, i in known.items() if i >= len(table) and piece not in special)
    if behind:
        raise TokenizerError(
            f"{folder}: {len(behind):,} pieces of tokenizer.json, such as {behind[0]!r}, are not in tokenizer.model; "
            f"{way}"
        )


def write_pieces(writer: Any, vocabulary: Vocabulary, chat_template: str | None, *, space_prefix: bool = False) -> None:
    """Add a SentencePiece tokenizer to a GGUF writer, as llama.cpp's own converter does it from tokenizer.model.

    space_prefix: whether every text gets a space in front (Llama 2 does, Gemma does not).
    """
    columns = list(zip(vocabulary.pieces, vocabulary.scores, vocabulary.types, strict=True))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([p.replace(SPACE, " ") if t == USER_DEFINED else p for p, _, t in columns])
    writer.add_token_scores([s if t in (NORMAL, BYTE) else UNMERGED_SCORE for _, s, t in columns])
    writer.add_token_types([t for *_, t in columns])
    ids = {k: getattr(vocabulary, f"{k}_id") for k in ("bos", "eos", "unk", "pad")}
    _write_named(writer, ids | {"eot": vocabulary.ids.get(_END_OF_TURN, -1)})
    writer.add_add_bos_token(True)
    writer.add_add_sep_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(space_prefix)
    if chat_template is not None:
        writer.add_chat_template(chat_template)


def _write_named(writer: Any, ids: dict[str, int]) -> None:
    """bos, eos, … where there is such a token (SentencePiece says -1 for none)."""
    for name, i in ids.items():
        if i >= 0:
            getattr(writer, f"add_{name}_token_id")(i)


def _write_byte_level(raw: Raw, folder: Path, pre: str, writer: Any, chat_template: str | None) -> None:
    added = {t["id"]: t for t in raw["added_tokens"]}
    pieces = {i: piece for piece, i in ids_of(raw).items()}
    size = max(pieces) + 1
    kinds = {i: CONTROL if t["special"] else USER_DEFINED for i, t in added.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([pieces.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types([kinds.get(i, NORMAL if i in pieces else UNUSED) for i in range(size)])
    writer.add_token_merges([f"{left} {right}" for left, right in merges_of(raw)])
    named = _named_tokens(folder, ids_of(raw))
    _write_named(writer, named)
    writer.add_add_bos_token(load_tokenizer(folder).encode("").ids[:1] == [named.get("bos")])
    if chat_template is not None:
        writer.add_chat_template(chat_template)


def _named_tokens(folder: Path, ids: dict[str, int]) -> dict[str, int]:
    """The ids of what tokenizer_config.json calls bos_token, eos_token, …"""
    config = read_json(folder / "tokenizer_config.json")
    found = {}
    for name in ("bos", "eos", "unk", "pad"):
        token = config.get(f"{name}_token")
        content = token.get("content") if isinstance(token, dict) else token
        if content in ids:
            found[name] = ids[content]
    return found


def chat_template(folder: Path) -> str | None:
    """The folder's template; without one llama.cpp falls back to ChatML, which few bases ever saw."""
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        return jinja.read_text("utf-8")
    template = read_json(folder / "tokenizer_config.json").get("chat_template")
    return template if isinstance(template, str) else None


def pre_of(folder: Path) -> str | None:
    """llama.cpp's name for how a folder's byte-level tokenizer.json cuts words; None when it is not known here."""
    return _pre_of(read_raw(folder))


def _pre_name(raw: Raw, folder: Path) -> str:
    name = _pre_of(raw)
    if name is None:
        raise TokenizerError(
            f"{folder}/tokenizer.json: its way to cut words has no llama.cpp name known here "
            f"({', '.join(_PRE_NAMES)}); serve the Hugging Face folder itself, or take the "
            "GGUF file of its makers"
        )
    return name


def _pre_of(raw: Raw) -> str | None:
    pre = raw.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", [pre])
    levels = [s for s in steps if s.get("type") == "ByteLevel"]
    names = [s.get("type") for s in steps]
    patterns = [s.get("pattern", {}).get("Regex", "") for s in steps if s.get("type") == "Split"]
    whole_words = bool(raw["model"].get("ignore_merges"))
    if not levels or any(s.get("add_prefix_space") for s in levels):
        return None
    uses = any(s.get("use_regex", True) for s in levels)
    if names == ["Split", "ByteLevel"] and not uses:
        return _PRE_BY_REGEX.get((patterns[0], whole_words))
    if whole_words or not uses:
        return None
    if names == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    return "gpt-2" if names == ["ByteLevel"] else None


def _adds_space(model: Path) -> bool:
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto()
    proto.ParseFromString(model.read_bytes())
    return bool(proto.normalizer_spec.add_dummy_prefix)
