"""Quantise a Gemma 3 folder to a GGUF file, and turn the stored numbers back into a folder to measure them.

Weight-only round-to-nearest in blocks of 32 (llama.cpp's Q8_0, Q4_0, Q4_1). What quantisation costs is
measured on the weights as they are stored, by the same code that measures the model before: bits per byte
of `restored(...)` against bits per byte of the original folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from vocabgraft.deployment.gguf_export import Progress, export_gguf
from vocabgraft.errors import MachineError, ModelError
from vocabgraft.models.gguf_import import import_gemma_gguf

Method = Literal["q4_0", "q4_1", "q8_0"]


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


def restored(gguf_file: Path, folder: Path, *, say: Progress = lambda _: None) -> None:
    """Write the stored weights back as a Hugging Face folder. `folder` must not exist.

    The folder holds bfloat16, so a number between two bfloat16 values moves by at most 0.4 %: small beside
    the steps of 4-bit blocks, comparable to those of Q8_0.
    """
    if folder.exists():
        raise ModelError(f"{folder}: exists already; name a folder that does not")
    try:
        import_gemma_gguf(gguf_file, folder, say=say)
    except OSError as e:
        raise MachineError(f"{folder}: cannot be restored from {gguf_file} ({e.strerror or e})") from e
