"""Write a Gemma 3 Hugging Face folder as one GGUF file, the format of llama.cpp.

The inverse of `vocabgraft.models.gguf_import`, without llama.cpp's converter: Gemma's piece table is ours
already, so nothing has to be guessed. Conventions of llama.cpp: RMSNorm weights are stored as 1 + w,
user-defined pieces with real spaces, padded matrix rows cut. Settings that llama.cpp's gemma3 graph has
built in (period 6, sliding rope base 10,000, attention scale) are checked and refused, never approximated.
The language half of a multimodal Gemma 3 (MedGemma 4B) is written; its vision tower is left out.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vocabgraft.deployment.gguf_tokenizer import write_pieces
from vocabgraft.errors import MachineError, ModelError
from vocabgraft.models.gguf_file import gguf_package
from vocabgraft.models.gguf_import import tensor_names
from vocabgraft.tokenizer.vocabulary import read_model

Quantization = Literal["f16", "q8_0", "q4_0", "q4_1"]
Progress = Callable[[str], None]

_FILE_TYPES = {"f16": 1, "q8_0": 7, "q4_0": 2, "q4_1": 3}  # llama_ftype
_CHUNK_VALUES = 1 << 22  # values quantised at a time: 16 MB in float32
_VOCABULARY_MATRICES = ("token_embd.weight", "output.weight")


@dataclass(frozen=True)
class _Source:
    """One tensor to write: where it comes from, how many rows of it count, what it becomes."""

    name: str
    key: str
    file: Path
    shape: tuple[int, ...]
    kind: Any


def export_gguf(
    model_folder: Path,
    out: Path,
    *,
    quantization: Quantization,
    name: str | None = None,
    license_id: str | None = None,
    say: Progress = lambda _: None,
) -> dict[str, Any]:
    """Write `out` (GGUF v3) and return `{"bytes": int, "tensors": {type: count}}`.

    `q4_0` and `q4_1` quantise the body to 4 bits; embedding and output matrix stay at Q8_0, because int4
    embeddings lose measurably. Rows that do not divide by 32 stay F16. `name` (default: the folder's) and
    `license_id` are stored as metadata. Memory: the largest tensor in its stored form plus 50 MB or so.
    Appears under its own name only when complete. Raises ModelError for a folder that is not Gemma 3 or
    whose settings llama.cpp cannot represent, MachineError when the file cannot be written.
    """
    if quantization not in _FILE_TYPES:
        raise ModelError(f"quantization {quantization!r} is unknown; choose one of {', '.join(_FILE_TYPES)}")
    gguf = gguf_package()
    config = _text_config(model_folder)
    _refuse_unsupported(config, model_folder)
    vocabulary = read_model(model_folder / "tokenizer.model")
    sources = _sources(model_folder, config, len(vocabulary), quantization)
    with _complete_or_absent(out) as partial:
        writer = gguf.GGUFWriter(str(partial), "gemma3")
        try:
            say(f"writing {len(vocabulary):,} pieces")
            _write_settings(writer, config)
            write_pieces(writer, vocabulary, _chat_template(model_folder))
            writer.add_name(name or model_folder.resolve().name)
            if license_id is not None:
                writer.add_license(license_id)
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            writer.add_file_type(_FILE_TYPES[quantization])
            _write_tensors(writer, sources, say)
        finally:
            writer.close()
    counts = Counter(source.kind.name for source in sources)
    return {"bytes": out.stat().st_size, "tensors": dict(sorted(counts.items()))}


@contextmanager
def _complete_or_absent(out: Path) -> Iterator[Path]:
    """Yield `out.partial`; rename it to `out` when the block ends well, remove it otherwise."""
    partial = out.with_name(out.name + ".partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(out)
    except OSError as e:
        # numpy's tofile reports a full disk without errno, as "N requested and M written".
        raise MachineError(f"{out}: cannot be written ({e.strerror or e}). Check the folder and the free space.") from e
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the parent is no folder: nothing was written, and the first error tells more


# Configuration


def _text_config(folder: Path) -> Any:
    """The Gemma 3 text configuration, with transformers' defaults for what the file leaves out."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text("utf-8"))
    except OSError as e:
        raise ModelError(f"{path}: cannot be read ({e.strerror}); a Hugging Face model folder is needed") from e
    except ValueError as e:
        raise ModelError(f"{path}: not JSON ({e})") from e
    kind = raw.get("model_type")
    if kind not in ("gemma3_text", "gemma3"):
        raise ModelError(
            f"{path}: model_type {kind!r}; only Gemma 3 is exported here. "
            "Use convert_hf_to_gguf.py of llama.cpp for other families."
        )
    from transformers import Gemma3TextConfig

    text = raw if kind == "gemma3_text" else raw.get("text_config", {})
    if "tie_word_embeddings" in raw:
        text = text | {"tie_word_embeddings": raw["tie_word_embeddings"]}
    return Gemma3TextConfig.from_dict(text)


def _refuse_unsupported(config: Any, folder: Path) -> None:
    """Raise ModelError, listing every setting that llama.cpp's gemma3 graph computes differently."""
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    # llama.cpp recognises 27B by its 62 layers and then scales by hidden / heads instead of head_dim.
    scale = config.hidden_size // heads if layers == 62 else config.head_dim
    pattern = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)]
    full, sliding = (config.rope_parameters[k] for k in ("full_attention", "sliding_attention"))
    checks = {
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
    wrong = [f"{key} is {found!r}, must be {want!r}" for key, (found, want) in checks.items() if found != want]
    if wrong:
        raise ModelError(f"{folder}: llama.cpp cannot represent this Gemma 3: " + "; ".join(wrong))


def _write_settings(writer: Any, config: Any) -> None:
    full = config.rope_parameters["full_attention"]
    writer.add_type("model")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(full["rope_theta"]))
    if full["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf_package().RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(full["factor"]))
    writer.add_sliding_window(config.sliding_window)


# Tokenizer


def _chat_template(folder: Path) -> str | None:
    """The folder's template; without one llama.cpp would fall back to ChatML, which Gemma never saw."""
    jinja, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if jinja.exists():
        return jinja.read_text("utf-8")
    template = json.loads(config.read_text("utf-8")).get("chat_template") if config.exists() else None
    return template if isinstance(template, str) else None


# Weights


def _text_key(key: str) -> str | None:
    """The name of a tensor in a text-only checkpoint; None for the vision half of a multimodal one."""
    if "vision_tower." in key or "multi_modal_projector." in key:
        return None
    for prefix in ("model.language_model.", "language_model.model."):
        if key.startswith(prefix):
            return "model." + key.removeprefix(prefix)
    return key.removeprefix("language_model.")


def _stored_tensors(folder: Path) -> dict[str, tuple[str, Path]]:
    """Text-only name -> (name in the file, file)."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.exists():
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    found: dict[str, tuple[str, Path]] = {}
    for file in (folder / name for name in names):
        try:
            with safe_open(file, framework="pt") as handle:
                found |= {text: (k, file) for k in handle.keys() if (text := _text_key(k))}  # noqa: SIM118
        except (OSError, SafetensorError) as e:
            raise ModelError(f"{file}: cannot be read as safetensors ({e})") from e
    return found


def _sources(folder: Path, config: Any, pieces: int, quantization: Quantization) -> list[_Source]:
    """Every tensor of the GGUF file in its order, with its final shape and type."""
    stored = _stored_tensors(folder)
    wanted = tensor_names(config.num_hidden_layers)
    if config.tie_word_embeddings:
        del wanted["output.weight"]
        stored.pop("lm_head.weight", None)  # a tied checkpoint may still carry a copy
    missing, extra = set(wanted.values()) - set(stored), set(stored) - set(wanted.values())
    if missing or extra:
        what = "lacks" if missing else "has unexpected"
        raise ModelError(f"{folder}: {what} tensors {sorted(missing or extra)[:3]} for a Gemma 3 of its config.json")
    return [_source(name, *stored[key], pieces, quantization) for name, key in wanted.items()]


def _source(name: str, key: str, file: Path, pieces: int, quantization: Quantization) -> _Source:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as handle:
        shape = tuple(handle.get_slice(key).get_shape())
    if name in _VOCABULARY_MATRICES:
        if shape[0] < pieces:
            raise ModelError(
                f"{file.parent}: {key} has {shape[0]} rows for {pieces} pieces of tokenizer.model; "
                "weights and tokenizer are not of the same model"
            )
        shape = (pieces, *shape[1:])
    return _Source(name, key, file, shape, _tensor_type(name, shape, quantization))


def _tensor_type(name: str, shape: tuple[int, ...], quantization: Quantization) -> Any:
    types = gguf_package().GGMLQuantizationType
    if len(shape) == 1:
        return types.F32
    if quantization == "f16" or shape[-1] % 32:
        return types.F16
    return types.Q8_0 if name in _VOCABULARY_MATRICES else types[quantization.upper()]


def _write_tensors(writer: Any, sources: list[_Source], say: Progress) -> None:
    """Announce every tensor, then write one after the other: only one is ever in memory."""
    from safetensors import safe_open

    for source in sources:
        row, dtype = _row_layout(source)
        shape = (*source.shape[:-1], row)
        size = int(np.prod(shape)) * dtype.itemsize
        writer.add_tensor_info(source.name, shape, dtype, size, raw_dtype=source.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with ExitStack() as stack:
        files = sorted({source.file for source in sources})
        handles = {file: stack.enter_context(safe_open(file, framework="pt")) for file in files}
        for done, source in enumerate(sources, start=1):
            say(f"tensor {done} of {len(sources)}: {source.name} as {source.kind.name}")
            writer.write_tensor_data(_stored_form(source, handles[source.file].get_slice(source.key)))


def _row_layout(source: _Source) -> tuple[int, np.dtype[Any]]:
    """Length of one row in the file, and of which numbers: bytes for quantised blocks."""
    gguf = gguf_package()
    types = gguf.GGMLQuantizationType
    plain = {types.F32: np.dtype(np.float32), types.F16: np.dtype(np.float16)}
    if source.kind in plain:
        return source.shape[-1], plain[source.kind]
    return gguf.quant_shape_to_byte_shape(source.shape, source.kind)[-1], np.dtype(np.uint8)


def _stored_form(source: _Source, rows: Any) -> np.ndarray:
    """Read and quantise in runs of rows, so that a 262k-row matrix never exists in float32."""
    from gguf.quants import quantize

    width, dtype = _row_layout(source)
    result = np.empty((*source.shape[:-1], width), dtype)
    step = max(1, _CHUNK_VALUES // source.shape[-1])
    for start in range(0, source.shape[0], step):
        values = rows[start : min(start + step, source.shape[0])].float().numpy()
        if source.name.endswith("norm.weight"):
            values = values + np.float32(1.0)
        # Checked here because quantising NaN gives plausible garbage, silently.
        limit = np.finfo(np.float32 if dtype == np.float32 else np.float16).max
        if not (np.abs(values) <= limit).all():
            raise ModelError(f"{source.file}: {source.key} holds NaN or numbers too large for {source.kind.name}")
        result[start : start + len(values)] = quantize(values, source.kind)
    return result
