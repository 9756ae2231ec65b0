"""Turn a Gemma 3 GGUF file into a Hugging Face folder: weights dequantised once, tokenizer rebuilt exactly.

transformers can read a GGUF too, but takes minutes, rebuilds the tokenizer without `tokenizer.model` and
refuses to save the result; this reads the file once. Conventions of llama.cpp that are undone here: RMSNorm
weights are stored as 1 + w, user-defined pieces with real spaces instead of ▁.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vocabgraft.errors import ModelError
from vocabgraft.models.chat_templates import GEMMA
from vocabgraft.models.gguf_families import stored_weights
from vocabgraft.models.gguf_file import open_gguf
from vocabgraft.tokenizer.vocabulary import NORMAL, SPACE, UNKNOWN, USER_DEFINED, Vocabulary, write_tokenizer

Progress = Callable[[str], None]


def import_gemma_gguf(gguf_file: Path, out: Path, *, say: Progress = lambda _: None) -> None:
    """Write `out/` with config, bf16 safetensors, tokenizer files. `out` must not exist.

    Cost: about 20 s and 3 GB for 270M parameters. Raises ModelError for another architecture.
    """
    reader = open_gguf(gguf_file)
    meta = {key: field.contents() for key, field in reader.fields.items()}
    if meta["general.architecture"] != "gemma3":
        raise ModelError(
            f"{gguf_file}: architecture {meta['general.architecture']!r}; only 'gemma3' GGUF files can be a base. "
            "Use a Hugging Face folder for other models."
        )
    out.mkdir(parents=True, exist_ok=True)
    say("rebuilding the tokenizer (262,144 pieces)")
    write_tokenizer(_vocabulary(meta), out, GEMMA)
    say("dequantising the weights to bfloat16")
    _write_weights(reader, int(meta["gemma3.block_count"]), out / "model.safetensors")
    tied = not any(t.name == "output.weight" for t in reader.tensors)
    config = _config(meta, tied)
    (out / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
    generation = {"bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=1), "utf-8")


def _vocabulary(meta: dict[str, Any]) -> Vocabulary:
    types = [int(t) for t in meta["tokenizer.ggml.token_type"]]
    pieces = [
        p.replace(" ", SPACE) if t == USER_DEFINED else p
        for p, t in zip(meta["tokenizer.ggml.tokens"], types, strict=True)
    ]
    scores = [float(s) if t == NORMAL else 0.0 for s, t in zip(meta["tokenizer.ggml.scores"], types, strict=True)]
    unk = int(meta["tokenizer.ggml.unknown_token_id"])
    types[unk] = UNKNOWN
    return Vocabulary(
        tuple(pieces),
        tuple(scores),
        tuple(types),
        unk_id=unk,
        bos_id=int(meta["tokenizer.ggml.bos_token_id"]),
        eos_id=int(meta["tokenizer.ggml.eos_token_id"]),
        pad_id=int(meta["tokenizer.ggml.padding_token_id"]),
    )


def _write_weights(reader: Any, num_layers: int, path: Path) -> None:
    from safetensors.torch import save

    path.write_bytes(save(dict(stored_weights(reader, num_layers)), {"format": "pt"}))


def _config(meta: dict[str, Any], tied: bool) -> dict[str, Any]:
    def g(key: str) -> Any:
        return meta[f"gemma3.{key}"]

    layers = int(g("block_count"))
    head_dim = int(g("attention.key_length"))
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "dtype": "bfloat16",
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
        "hidden_size": int(g("embedding_length")),
        "intermediate_size": int(g("feed_forward_length")),
        "num_hidden_layers": layers,
        "num_attention_heads": int(g("attention.head_count")),
        "num_key_value_heads": int(g("attention.head_count_kv")),
        "head_dim": head_dim,
        "query_pre_attn_scalar": head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": int(g("context_length")),
        "rms_norm_eps": 1e-6,
        "sliding_window": int(g("attention.sliding_window")),
        "layer_types": ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": float(g("rope.freq_base"))},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": tied,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "initializer_range": 0.02,
        "use_cache": True,
    }
