"""The tokenizer inside a GGUF file: written from a folder, read back, or alone in a file with next to no weights.

llama.cpp has two families. `llama` merges SentencePiece pieces by score, `gpt2` merges byte-level pieces by a list
and cuts words by a regular expression that it knows by name (`tokenizer.ggml.pre`) and cannot read from
`tokenizer.json`. A wrong name or score raises no error: it cuts words differently, in silence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocabgraft.errors import MachineError, ModelError, TokenizerError
from vocabgraft.models.gguf_file import gguf_package, open_gguf
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
_WIDTH = 32  # of the matrices in a file that is only to tokenise

# The words of tokenizer.json's pre-tokenizer -> llama.cpp's name for the same cut (its llama-vocab.cpp, load).
_CASED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PRE_BY_REGEX = {_CASED + r"\p{N}{1,3}" + _REST: "llama-bpe", _CASED + r"\p{N}" + _REST: "qwen2"}


@dataclass(frozen=True)
class GgufTokenizer:
    """What a GGUF file says about its tokenizer: pieces, types and scores by id, and every other field."""

    model: str
    pieces: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    fields: dict[str, Any]


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
    writer.add_bos_token_id(vocabulary.bos_id)
    writer.add_eos_token_id(vocabulary.eos_id)
    writer.add_unk_token_id(vocabulary.unk_id)
    writer.add_pad_token_id(vocabulary.pad_id)
    if _END_OF_TURN in vocabulary.ids:
        writer.add_eot_token_id(vocabulary.ids[_END_OF_TURN])
    writer.add_add_bos_token(True)
    writer.add_add_sep_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(space_prefix)
    if chat_template is not None:
        writer.add_chat_template(chat_template)


def write_byte_level(writer: Any, folder: Path) -> None:
    """Add the byte-level BPE of a folder's tokenizer.json to a GGUF writer.

    Raises TokenizerError for another kind, and for words cut in a way whose llama.cpp name is not known here.
    """
    raw = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    pre = _pre_name(raw, folder)
    added = {t["id"]: t for t in raw.get("added_tokens", [])}
    pieces = {i: p for p, i in raw["model"]["vocab"].items()} | {i: t["content"] for i, t in added.items()}
    size = max(pieces) + 1
    kinds = {i: CONTROL if t["special"] else USER_DEFINED for i, t in added.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([pieces.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types([kinds.get(i, NORMAL if i in pieces else UNUSED) for i in range(size)])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in raw["model"]["merges"]])
    writer.add_add_bos_token(False)


def pre_of(folder: Path) -> str | None:
    """llama.cpp's name for how a folder's byte-level tokenizer.json cuts words; None when it is not known here."""
    raw = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    return _pre_of(raw)


def _pre_name(raw: dict[str, Any], folder: Path) -> str:
    kind = raw.get("model", {}).get("type")
    if kind != "BPE":
        raise TokenizerError(f"{folder}/tokenizer.json: model {kind!r}; llama.cpp's gpt2 family needs byte-level BPE")
    name = _pre_of(raw)
    if name is None:
        known = "gpt-2, smollm, llama-bpe, qwen2"
        raise TokenizerError(
            f"{folder}/tokenizer.json: its way to cut words has no llama.cpp name known here ({known}); "
            "give a GGUF file of the model"
        )
    return name


def _pre_of(raw: dict[str, Any]) -> str | None:
    pre = raw.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", [pre])
    names = [s.get("type") for s in steps]
    patterns = [s.get("pattern", {}).get("Regex", "") for s in steps if s.get("type") == "Split"]
    uses = any(s.get("use_regex", True) for s in steps if s.get("type") == "ByteLevel")
    if "ByteLevel" not in names:
        return None
    if patterns:
        return next((_PRE_BY_REGEX[p] for p in patterns if p in _PRE_BY_REGEX), None)
    if names == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and uses:
        return "smollm"
    return "gpt-2" if names == ["ByteLevel"] and uses else None


def read_gguf_tokenizer(path: Path) -> GgufTokenizer:
    """The tokenizer of a GGUF file. Raises ModelError when there is none to read."""
    fields = {k: f.contents() for k, f in _tokenizer_fields(path).items()}
    pieces = tuple(fields["tokenizer.ggml.tokens"])
    scores = fields.get("tokenizer.ggml.scores") or [0.0] * len(pieces)
    types = fields.get("tokenizer.ggml.token_type") or [NORMAL] * len(pieces)
    model = str(fields.get("tokenizer.ggml.model"))
    return GgufTokenizer(model, pieces, tuple(map(int, types)), tuple(map(float, scores)), fields)


def write_folder_tokenizer(folder: Path, out: Path) -> None:
    """Write a GGUF file with the tokenizer of a folder and the smallest model llama.cpp loads (17 MB for 262k pieces).

    From tokenizer.model where there is one, else from a byte-level tokenizer.json; TokenizerError for neither.
    """
    model = folder / "tokenizer.model"
    vocabulary = read_model(model) if model.is_file() else None

    def add(writer: Any) -> None:
        if vocabulary is None:
            write_byte_level(writer, folder)
        else:
            write_pieces(writer, vocabulary, None, space_prefix=_adds_space(model))

    _write_smallest(out, add, len(vocabulary) if vocabulary else _size(folder))


def copy_tokenizer(source: Path, out: Path) -> None:
    """Write a GGUF file with the tokenizer fields of another and the smallest model: loads at once, cuts alike."""
    fields = _tokenizer_fields(source)
    array = gguf_package().GGUFValueType.ARRAY

    def add(writer: Any) -> None:
        for name, field in fields.items():
            kind = field.types[0]
            writer.add_key_value(name, field.contents(), kind, field.types[-1] if kind == array else None)

    _write_smallest(out, add, len(fields["tokenizer.ggml.tokens"].data))


def _tokenizer_fields(path: Path) -> dict[str, Any]:
    try:
        found = open_gguf(path).fields
    except (OSError, ValueError, IndexError) as e:
        raise ModelError(f"{path}: cannot be read as GGUF ({e}); export it again") from e
    fields = {k: f for k, f in found.items() if k.startswith("tokenizer.") and "chat_template" not in k}
    if "tokenizer.ggml.tokens" not in fields:
        raise ModelError(f"{path}: no tokenizer in this GGUF file; export it again")
    return fields


def _adds_space(model: Path) -> bool:
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto()
    proto.ParseFromString(model.read_bytes())
    return bool(proto.normalizer_spec.add_dummy_prefix)


def _size(folder: Path) -> int:
    raw = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    _pre_name(raw, folder)
    ids = [*raw["model"]["vocab"].values(), *(t["id"] for t in raw.get("added_tokens", []))]
    return int(max(ids)) + 1


def _write_smallest(out: Path, add: Any, pieces: int) -> None:
    """One layer of zeros: llama.cpp's server wants a whole model before it tokenises."""
    writer = gguf_package().GGUFWriter(str(out), "llama")
    try:
        _add_shape(writer)
        add(writer)
        for name, shape in _shapes(pieces).items():
            writer.add_tensor(name, np.zeros(shape, np.float32 if len(shape) == 1 else np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except OSError as e:
        raise MachineError(f"{out}: cannot be written ({e.strerror or e}). Check the folder and the free space.") from e
    finally:
        writer.close()


def _add_shape(writer: Any) -> None:
    writer.add_context_length(256)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(_WIDTH)


def _shapes(pieces: int) -> dict[str, tuple[int, ...]]:
    square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (pieces, _WIDTH), "output_norm.weight": (_WIDTH,)}
    shapes |= {f"blk.0.{n}.weight": (_WIDTH,) for n in ("attn_norm", "ffn_norm")}
    return shapes | {f"blk.0.{n}.weight": (_WIDTH, _WIDTH) for n in square}
