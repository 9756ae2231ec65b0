"""Quantise a Gemma 3 folder to a GGUF file, and put the stored numbers back into a model to measure them.

Weight-only round-to-nearest in blocks of 32 (llama.cpp's Q8_0, Q4_0, Q4_1). What quantisation costs is
measured on the weights as they are stored, by the same code that measures the model before: bits per byte
after `put_stored` against bits per byte before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from vocabgraft.deployment.gguf_export import Progress, export_gguf
from vocabgraft.errors import ModelError
from vocabgraft.models.gguf_families import stored_weights
from vocabgraft.models.gguf_file import open_gguf

Method = Literal["q4_0", "q4_1", "q8_0", "q4_k_m"]


def quantize(
    model_folder: Path,
    out: Path,
    method: Method,
    *,
    name: str | None = None,
    license_id: str | None = None,
    say: Progress = lambda _: None,
) -> dict[str, Any]:
    """Write `out` with quantised weights; returns what `export_gguf` returns.

    Bits per weight of the body: q8_0 8.5, q4_1 5.0, q4_0 4.5. The embedding is Q8_0 in all of them.
    """
    return export_gguf(model_folder, out, quantization=method, name=name, license_id=license_id, say=say)


def put_stored(gguf_file: Path, model: Any) -> None:
    """Copy the weights as `gguf_file` stores them into the live model it was written from, in place.

    A bfloat16 model rounds them, by at most 0.4 %: small beside the steps of 4-bit blocks, comparable to those
    of Q8_0. Rows that only pad a matrix are not in the file and stay. Raises ModelError when file and model differ.
    """
    import torch

    from vocabgraft.models.load import decoder_of

    body = decoder_of(model)
    wanted = {f"model.{name}": p for name, p in body.named_parameters()}
    if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        wanted["lm_head.weight"] = model.get_output_embeddings().weight
    with torch.no_grad():
        for name, values in stored_weights(open_gguf(gguf_file), len(body.layers)):
            parameter = wanted.pop(name, None)
            if parameter is None or parameter.shape[1:] != values.shape[1:] or len(parameter) < len(values):
                raise ModelError(f"{gguf_file}: {name} does not fit the model it is compared with")
            parameter[: len(values)] = values.to(parameter)
    if wanted:
        raise ModelError(f"{gguf_file}: lacks {', '.join(sorted(wanted)[:3])}; export it again")
