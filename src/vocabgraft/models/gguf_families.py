"""How a decoder of Hugging Face lies in a GGUF file: names, and the two changes llama.cpp makes to numbers.

A family is a row of data. RMSNorm weights of Gemma are stored as 1 + w. In the `llama` architecture the rotary
embedding turns neighbouring numbers of a head, where transformers turns the halves: rows of q and k are re-ordered, and
only there. Conventions of llama.cpp's `conversion/` and `src/models/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vocabgraft.errors import ModelError

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_SANDWICH = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PLAIN_NORM = {"ffn_norm": "post_attention_layernorm"}


@dataclass(frozen=True)
class Family:
    """One architecture of llama.cpp: its name, what a layer holds, and what differs in the numbers."""

    architecture: str
    layer: dict[str, str]
    """GGUF name -> Hugging Face name inside a layer."""
    biased: tuple[str, ...] = ()
    turned: tuple[str, ...] = ()
    """Matrices whose rows llama.cpp wants in the order of its rotary embedding."""
    norm_offset: float = 0.0
    model_types: tuple[str, ...] = ()
    """Values of `model_type` in config.json."""

    def tensor_names(self, num_layers: int) -> dict[str, str]:
        """GGUF tensor name -> Hugging Face tensor name; `output.weight` is there only in untied models."""
        names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
        for i in range(num_layers):
            names |= {f"blk.{i}.{g}": f"model.layers.{i}.{h}" for g, h in self.layer.items()}
        found = {f"{g}.weight": f"{h}.weight" for g, h in names.items()}
        return found | {f"{g}.bias": f"{h}.bias" for g, h in names.items() if g.split(".")[-1] in self.biased}

    def is_turned(self, name: str) -> bool:
        """Whether a tensor, by its GGUF name, has its rows re-ordered."""
        return name.split(".")[-2] in self.turned


FAMILIES = (
    Family(
        "gemma3",
        _LAYER | _HEAD_NORMS | _SANDWICH,
        norm_offset=1.0,
        model_types=("gemma3_text", "gemma3"),
    ),
    Family("llama", _LAYER | _PLAIN_NORM, turned=("attn_q", "attn_k"), model_types=("llama", "mistral")),
    Family("qwen2", _LAYER | _PLAIN_NORM, biased=("attn_q", "attn_k", "attn_v"), model_types=("qwen2",)),
    Family("qwen3", _LAYER | _HEAD_NORMS | _PLAIN_NORM, model_types=("qwen3",)),
)
ROPE_FACTORS = "rope_freqs.weight"
"""Divisors of the rotary frequencies (Llama 3.1), worked out from config.json: no tensor of a Hugging Face folder."""


def family_of(model_type: str | None) -> Family | None:
    """The family of a `model_type`; None for one that is not known here."""
    return next((f for f in FAMILIES if model_type in f.model_types), None)


def turn(values: Any, heads: int) -> Any:
    """Rows of q or k in llama.cpp's order: of each head first, half+1st, second, half+2nd, … ."""
    rows = values.shape[0] // heads
    return values.reshape(heads, 2, rows // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def turn_back(values: Any, heads: int) -> Any:
    """The inverse of `turn`."""
    rows = values.shape[0] // heads
    return values.reshape(heads, rows // 2, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def stored_weights(reader: Any, num_layers: int) -> Iterator[tuple[str, Any]]:
    """Each tensor of an open GGUF file under its Hugging Face name, as bfloat16 numbers that are stored there."""
    import gguf
    import numpy as np
    import torch

    architecture = str(reader.fields["general.architecture"].contents())
    family = next((f for f in FAMILIES if f.architecture == architecture), None)
    if family is None:
        known = ", ".join(f.architecture for f in FAMILIES)
        raise ModelError(f"{reader.data.filename}: architecture {architecture!r}; known here are {known}")
    names = family.tensor_names(num_layers)
    counts = {
        c: int(reader.fields[f"{architecture}.attention.{c}"].contents()) for c in ("head_count", "head_count_kv")
    }
    for tensor in reader.tensors:
        if tensor.name == ROPE_FACTORS:
            continue
        if tensor.name not in names:
            raise ModelError(f"{reader.data.filename}: unexpected tensor {tensor.name!r} for {architecture}")
        values = np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if tensor.name.endswith("norm.weight"):
            values -= np.float32(family.norm_offset)
        if family.is_turned(tensor.name):
            values = turn_back(values, counts["head_count" if "attn_q" in tensor.name else "head_count_kv"])
        yield names[tensor.name], torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
