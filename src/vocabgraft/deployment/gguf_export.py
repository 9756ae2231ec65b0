"""Write a Hugging Face folder as one GGUF file, the format of llama.cpp: Gemma 3, Llama, Qwen 2 and 3.

Done without llama.cpp's converter, which has to guess what is known here: the piece table is ours already, and a new
language is what its guess stops at. What differs between families is a row of `models.gguf_families`, what llama.cpp
cannot represent is refused (`gguf_settings`), which numbers are stored is chosen in `ggml_blocks`. Padded matrix rows
are cut. The language half of a multimodal Gemma 3 (MedGemma 4B) is written; its vision tower is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocabgraft.deployment.ggml_blocks import FILE_TYPES, VOCABULARY_MATRICES, Quantization, in_blocks, tensor_type
from vocabgraft.deployment.gguf_pieces import chat_template, check_two_files, folder_tokenizer
from vocabgraft.deployment.gguf_settings import read_settings, rope_factors, write_settings
from vocabgraft.errors import ModelError
from vocabgraft.models.gguf_families import ROPE_FACTORS, Family, turn
from vocabgraft.models.gguf_file import finish, gguf_package, whole_file
from vocabgraft.models.headers import read_headers

Progress = Callable[[str], None]

_CHUNK_VALUES = 1 << 22  # values quantised at a time: 16 MB in float32


@dataclass(frozen=True)
class _Source:
    """One tensor to write: where it comes from, how many rows of it count, what it becomes.

    heads: whose rows are re-ordered (0: none are). offset: what is added to its numbers.
    """

    name: str
    key: str
    file: Path
    shape: tuple[int, ...]
    kind: Any
    heads: int = 0
    offset: float = 0.0


def export_gguf(
    model_folder: Path,
    out: Path,
    *,
    quantization: Quantization,
    name: str | None = None,
    license_id: str | None = None,
    say: Progress = lambda _: None,
) -> dict[str, Any]:
    """Write `out` (GGUF v3) and return `{"bytes": int, "tensors": {type: count}, "pre": str, "normalises": …}`.

    Which tensor gets which type: `ggml_blocks.tensor_type`. `pre` is llama.cpp's name for how the tokenizer cuts words,
    `normalises` what of the tokenizer llama.cpp does not do (Qwen's NFC; else None). `name` (default: the folder's) and
    `license_id` are stored as metadata. Memory: the largest tensor in its stored form plus 50 MB or so.
    Appears under its own name only when complete. Raises ModelError for a folder that is damaged, of another family or
    with settings that llama.cpp cannot represent, TokenizerError for a tokenizer that does not fit or has no GGUF form,
    MachineError when the file cannot be written.
    """
    if quantization not in FILE_TYPES:
        raise ModelError(f"quantization {quantization!r} is unknown; choose one of {', '.join(FILE_TYPES)}")
    gguf = gguf_package()
    family, config = read_settings(model_folder)
    tokenizer = folder_tokenizer(model_folder)
    check_two_files(model_folder)
    sources = _sources(model_folder, family, config, tokenizer.size, quantization)
    with whole_file(out) as partial:
        writer = gguf.GGUFWriter(str(partial), family.architecture)
        try:
            say(f"writing {tokenizer.size:,} pieces")
            write_settings(writer, family, config)
            tokenizer.write(writer, chat_template(model_folder))
            writer.add_name(name or model_folder.resolve().name)
            if license_id is not None:
                writer.add_license(license_id)
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            writer.add_file_type(FILE_TYPES[quantization])
            _write_tensors(writer, sources, rope_factors(family, config), say)
            finish(writer, partial)
        finally:
            writer.close()
    counts = Counter(source.kind.name for source in sources)
    return {
        "bytes": out.stat().st_size,
        "tensors": dict(sorted(counts.items())),
        "pre": tokenizer.pre,
        "normalises": tokenizer.normalises,
    }


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

    _, problems = read_headers(folder)
    if problems:
        raise ModelError(f"{folder}: " + "; ".join(problems))
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
            raise ModelError(f"{file}: cannot be read as safetensors ({e}); download it again") from e
    return found


def _sources(folder: Path, family: Family, config: Any, pieces: int, quantization: Quantization) -> list[_Source]:
    """Every tensor of the GGUF file in its order, with its final shape and type."""
    stored = _stored_tensors(folder)
    layers = config.num_hidden_layers
    wanted = family.tensor_names(layers)
    if config.tie_word_embeddings:
        del wanted["output.weight"]
        stored.pop("lm_head.weight", None)  # a tied checkpoint may still carry a copy
    # Old Llama checkpoints hold the frequencies of the rotary embedding; they follow from config.json.
    stored = {k: v for k, v in stored.items() if not k.endswith("rotary_emb.inv_freq")}
    missing, extra = set(wanted.values()) - set(stored), set(stored) - set(wanted.values())
    if missing or extra:
        what = "lacks" if missing else "has unexpected"
        found = sorted(missing or extra)[:3]
        raise ModelError(f"{folder}: {what} tensors {found} for a {family.architecture} model of its config.json")
    sources = []
    for name, key in wanted.items():
        shape = _shape(name, *stored[key], pieces)
        heads = config.num_attention_heads if "attn_q" in name else config.num_key_value_heads
        sources.append(
            _Source(
                name,
                *stored[key],
                shape,
                tensor_type(name, shape, quantization, layers),
                heads if family.is_turned(name) else 0,
                family.norm_offset if name.endswith("norm.weight") else 0.0,
            )
        )
    return sources


def _shape(name: str, key: str, file: Path, pieces: int) -> tuple[int, ...]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as handle:
        shape = tuple(handle.get_slice(key).get_shape())
    if name not in VOCABULARY_MATRICES:
        return shape
    if shape[0] < pieces:
        raise ModelError(
            f"{file.parent}: {key} has {shape[0]:,} rows for {pieces:,} pieces of the tokenizer; "
            "weights and tokenizer are not of the same model"
        )
    return (pieces, *shape[1:])


def _write_tensors(writer: Any, sources: list[_Source], factors: np.ndarray | None, say: Progress) -> None:
    """Announce every tensor, then write one after the other: only one is ever in memory."""
    from safetensors import safe_open

    for source in sources:
        row, dtype = _row_layout(source)
        shape = (*source.shape[:-1], row)
        size = int(np.prod(shape)) * dtype.itemsize
        writer.add_tensor_info(source.name, shape, dtype, size, raw_dtype=source.kind)
    if factors is not None:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with ExitStack() as stack:
        files = sorted({source.file for source in sources})
        handles = {file: stack.enter_context(safe_open(file, framework="pt")) for file in files}
        for done, source in enumerate(sources, start=1):
            say(f"tensor {done} of {len(sources)}: {source.name} as {source.kind.name}")
            writer.write_tensor_data(_stored_form(source, handles[source.file].get_slice(source.key)))
    if factors is not None:
        writer.write_tensor_data(factors)


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
    width, dtype = _row_layout(source)
    result = np.empty((*source.shape[:-1], width), dtype)
    step = max(1, _CHUNK_VALUES // source.shape[-1])
    for start in range(0, source.shape[0], step):
        values = rows[start : min(start + step, source.shape[0])].float().numpy()
        if source.offset:
            values = values + np.float32(source.offset)
        # Checked here because quantising NaN gives plausible garbage, silently.
        limit = np.finfo(np.float32 if dtype == np.float32 else np.float16).max
        if not (np.abs(values) <= limit).all():
            raise ModelError(f"{source.file}: {source.key} holds NaN or numbers too large for {source.kind.name}")
        result[start : start + len(values)] = in_blocks(values, source.kind)
    # A row is quantised alone, so the order of rows may change afterwards.
    return turn(result, source.heads) if source.heads else result
