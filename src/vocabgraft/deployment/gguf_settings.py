"""Settings of a decoder in a GGUF file: read from config.json, checked against llama.cpp's graphs, written.

What a graph of llama.cpp has built in (activation, attention scale, which layers slide) cannot be said in the file. A
model that differs there would load and answer, wrongly: each such setting is checked and refused, never approximated.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from vocabgraft.errors import ModelError
from vocabgraft.models.gguf_families import FAMILIES, Family, family_of
from vocabgraft.models.gguf_file import gguf_package

_ROPES = ("default", "linear", "llama3")


def read_settings(folder: Path) -> tuple[Family, Any]:
    """The family of a folder and its text configuration, with transformers' defaults for what config.json leaves out.

    Raises ModelError for a family that is not known here and for settings that llama.cpp computes differently.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text("utf-8"))
    except OSError as e:
        raise ModelError(f"{path}: cannot be read ({e.strerror}); a Hugging Face model folder is needed") from e
    except ValueError as e:
        raise ModelError(f"{path}: not JSON ({e})") from e
    kind = raw.get("model_type")
    family = family_of(kind)
    if family is None:
        known = ", ".join(t for f in FAMILIES for t in f.model_types)
        raise ModelError(
            f"{path}: model_type {kind!r}; exported here are {known}. "
            "Use convert_hf_to_gguf.py of llama.cpp for other families."
        )
    config = _text_config(kind, raw)
    checks = _gemma_checks(config) if family.architecture == "gemma3" else _plain_checks(config, family)
    wrong = [f"{key} is {found!r}, must be {want!r}" for key, (found, want) in checks.items() if found != want]
    if wrong:
        raise ModelError(f"{folder}: llama.cpp cannot represent this {kind} model: " + "; ".join(wrong))
    return family, config


def _text_config(kind: str, raw: dict[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    if kind != "gemma3":
        return CONFIG_MAPPING[kind].from_dict(raw)
    text = raw.get("text_config", {})
    if "tie_word_embeddings" in raw:
        text = text | {"tie_word_embeddings": raw["tie_word_embeddings"]}
    return CONFIG_MAPPING["gemma3_text"].from_dict(text)


def _gemma_checks(config: Any) -> dict[str, tuple[Any, Any]]:
    """Setting -> (found, what llama.cpp's gemma3 graph computes)."""
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    # llama.cpp recognises 27B by its 62 layers and then scales by hidden / heads instead of head_dim.
    scale = config.hidden_size // heads if layers == 62 else config.head_dim
    pattern = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)]
    full, sliding = (config.rope_parameters[k] for k in ("full_attention", "sliding_attention"))
    return {
        "query_pre_attn_scalar": (config.query_pre_attn_scalar, scale),
        "layer_types": (list(config.layer_types), pattern),
        "hidden_activation": (config.hidden_activation, "gelu_pytorch_tanh"),
        "attention_bias": (bool(config.attention_bias), False),
        "attn_logit_softcapping": (config.attn_logit_softcapping, None),
        "final_logit_softcapping": (config.final_logit_softcapping, None),
        "use_bidirectional_attention": (bool(config.use_bidirectional_attention), False),
        "sliding rope_theta": (float(sliding["rope_theta"]), 10000.0),
        "sliding rope_type": (sliding["rope_type"], "default"),
        "full rope_type": (full["rope_type"], "linear" if full["rope_type"] == "linear" else "default"),
    }


def _plain_checks(config: Any, family: Family) -> dict[str, tuple[Any, Any]]:
    """Setting -> (found, what llama.cpp's llama, qwen2 and qwen3 graphs compute)."""
    rope = config.rope_parameters
    ropes = _ROPES if family.architecture == "llama" else _ROPES[:2]
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return {
        "hidden_act": (config.hidden_act, "silu"),
        "attention_bias": (bool(getattr(config, "attention_bias", False)), False),
        "mlp_bias": (bool(getattr(config, "mlp_bias", False)), False),
        "sliding_window": (window, None),
        "rope_type": (rope["rope_type"], rope["rope_type"] if rope["rope_type"] in ropes else " or ".join(ropes)),
        "partial_rotary_factor": (float(rope.get("partial_rotary_factor", 1.0)), 1.0),
    }


def head_dim(config: Any) -> int:
    """Numbers of one attention head; config.json may leave them out."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def write_settings(writer: Any, family: Family, config: Any) -> None:
    """Add everything llama.cpp reads of the configuration to a GGUF writer."""
    gemma = family.architecture == "gemma3"
    rope = config.rope_parameters["full_attention"] if gemma else config.rope_parameters
    writer.add_type("model")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf_package().RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if gemma:
        writer.add_sliding_window(config.sliding_window)
    else:
        writer.add_rope_dimension_count(head_dim(config))


def rope_factors(family: Family, config: Any) -> np.ndarray | None:
    """What Llama 3.1 divides each rotary frequency by; None for every other model.

    As in transformers' `_compute_llama3_parameters`: long waves by the factor, short ones by 1, a ramp in between.
    """
    rope = config.rope_parameters
    if family.architecture != "llama" or rope["rope_type"] != "llama3":
        return None
    half = np.arange(0, head_dim(config), 2, dtype=np.float64) / head_dim(config)
    waves = 2 * math.pi * float(rope["rope_theta"]) ** half
    low, high, factor = (float(rope[k]) for k in ("low_freq_factor", "high_freq_factor", "factor"))
    context = float(rope["original_max_position_embeddings"])
    ramp = np.clip((context / waves - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - ramp) / factor + ramp)).astype(np.float32)
