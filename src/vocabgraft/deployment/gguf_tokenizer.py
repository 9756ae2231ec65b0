"""The tokenizer of a GGUF file: read back, or put alone into a file with next to no weights, to tokenise with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocabgraft.deployment.gguf_pieces import folder_tokenizer
from vocabgraft.errors import ModelError
from vocabgraft.models.gguf_file import finish, gguf_package, open_gguf, whole_file
from vocabgraft.tokenizer.vocabulary import NORMAL

_WIDTH = 32  # of the matrices in a file that is only to tokenise


@dataclass(frozen=True)
class GgufTokenizer:
    """What a GGUF file says about its tokenizer: pieces, types and scores by id, and every other field."""

    model: str
    pieces: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    fields: dict[str, Any]


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
    tokenizer = folder_tokenizer(folder)
    _write_smallest(out, lambda writer: tokenizer.write(writer, None), tokenizer.size)


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


def _write_smallest(out: Path, add: Any, pieces: int) -> None:
    """One layer of zeros: llama.cpp's server wants a whole model before it tokenises."""
    with whole_file(out) as partial:
        writer = gguf_package().GGUFWriter(str(partial), "llama")
        try:
            _add_shape(writer)
            add(writer)
            for name, shape in _shapes(pieces).items():
                writer.add_tensor(name, np.zeros(shape, np.float32 if len(shape) == 1 else np.float16))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            finish(writer, partial)
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
