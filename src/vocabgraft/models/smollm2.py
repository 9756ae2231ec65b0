"""The tokenizer of SmolLM2 from its GGUF file, as the two files that Hugging Face ships: a byte-level BPE base to try.

Pieces, types, merges and chat template are in the GGUF; its `tokenizer.ggml.pre = smollm` names the pre-tokenizer:
single digits first, then GPT-2's pattern (llama.cpp, `llama-vocab.cpp`). 21 of the 256 bytes have no piece.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vocabgraft.errors import ModelError
from vocabgraft.models.gguf_file import open_gguf

_CONTROL, _USER_DEFINED = 3, 4


def write_smollm2_tokenizer(gguf_file: Path, out: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` into `out`. Raises ModelError for another tokenizer."""
    meta = {key: field.contents() for key, field in open_gguf(gguf_file).fields.items()}
    kind = (meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise ModelError(f"{gguf_file}: tokenizer {kind}; a GGUF file of SmolLM2 is needed, ('gpt2', 'smollm')")
    out.mkdir(parents=True, exist_ok=True)
    added = _added_tokens(meta)
    _write(out / "tokenizer.json", _tokenizer(meta, added))
    _write(out / "tokenizer_config.json", _config(meta, added))


def _added_tokens(meta: dict[str, Any]) -> list[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    rows = enumerate(zip(meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"], strict=True))
    return [
        {"id": i, "content": piece, **flags, "special": kind == _CONTROL}
        for i, (piece, kind) in rows
        if kind in (_CONTROL, _USER_DEFINED)
    ]


def _tokenizer(meta: dict[str, Any], added: list[dict[str, Any]]) -> dict[str, Any]:
    level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, level | {"add_prefix_space": False}],
        },
        "post_processor": None,
        "decoder": level | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {piece: i for i, piece in enumerate(meta["tokenizer.ggml.tokens"])},
            "merges": list(meta["tokenizer.ggml.merges"]),
        },
    }


def _config(meta: dict[str, Any], added: list[dict[str, Any]]) -> dict[str, Any]:
    tokens = meta["tokenizer.ggml.tokens"]
    bos, eos, unk, pad = (tokens[meta[f"tokenizer.ggml.{k}_token_id"]] for k in ("bos", "eos", "unknown", "padding"))
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added},
        "additional_special_tokens": [bos, eos],
        "bos_token": bos,
        "chat_template": meta["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "eos_token": eos,
        "model_max_length": meta["llama.context_length"],
        "pad_token": pad,
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": unk,
        "vocab_size": len(tokens),
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
