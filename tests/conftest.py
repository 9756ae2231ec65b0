"""One tiny world a session: a random Gemma 3, tied and untied, and its tokenizer with 200 Korean pieces grafted on.

Everything is real but small: the real architecture class, real tokenizer files, real Korean prose. torch is
imported only by the tests that ask for the world.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A shared machine is slow at times; a test that is right must not fail for it.
settings.register_profile("house", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

PIECES = 200


@dataclass(frozen=True)
class World:
    """Folders of the base and of the expanded tokenizer, what was added, and the prose behind both."""

    tied: bool
    base: Path
    tokenizer: Path
    expansion: Any
    korean: tuple[str, ...]
    english: tuple[str, ...]

    @cached_property
    def ids(self) -> Any:
        """The new ids as a tensor."""
        import torch

        return torch.tensor(self.expansion.ids)

    @property
    def size(self) -> int | None:
        """Rows that the matrices must have; None where they keep their shape."""
        size: int | None = self.expansion.rows
        return size

    def graft(self, *, dtype: str = "float32", rank: int = 0, untie: bool = False, device: str = "cpu") -> Any:
        """A fresh live model with its rows; with a rank, adapters on q_proj and down_proj that already do something."""
        import torch

        from vocabgraft.embedding.rows import Rows, grow
        from vocabgraft.models.load import load_model
        from vocabgraft.training import lora
        from vocabgraft.training.graft import Graft

        model = load_model(self.base, dtype=dtype, device=device)
        grow(model, self.size)
        graft = Graft(model, Rows(model, self.ids, untie=untie))
        if rank:
            graft.adapters = lora.attach(model, rank=rank, alpha=2 * rank, modules=["q_proj", "down_proj"], seed=0)
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for name, adapter in graft.adapters.items():
                    if name.endswith(".lora_B"):
                        adapter.copy_(torch.empty(adapter.shape).normal_(0.0, 0.05, generator=generator))
        return graft

    def mixture(self, *, window: int = 48, rows_per_step: int = 4) -> Any:
        """Batches of Korean prose with a quarter of English, as the steps make them."""
        from vocabgraft.corpus.mix import Mixture, pack_documents
        from vocabgraft.tokenizer.measure import encode, load_tokenizer

        tokenizer = load_tokenizer(self.tokenizer)
        packed = [pack_documents(encode(tokenizer, texts[:6]), window, bos=2) for texts in (self.korean, self.english)]
        return Mixture(*packed, replay_share=0.25, seed=0, rows_per_step=rows_per_step)


def _prose(language: str) -> tuple[str, ...]:
    folder = Path(str(files("vocabgraft") / "samples" / language))
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    return tuple(json.loads(line)["text"] for line in lines[::2])


@pytest.fixture(scope="session")
def korean() -> tuple[str, ...]:
    """Every second text of the Korean sample prose."""
    return _prose("korean")


@pytest.fixture(scope="session")
def english() -> tuple[str, ...]:
    """Every second text of the English sample prose."""
    return _prose("english")


def _module(path: str) -> ModuleType:
    """A file beside the tests; pytest's importlib mode has no way to import it by name."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def families() -> ModuleType:
    """tests/tokenizer/families.py."""
    return _module("tokenizer/families.py")


@pytest.fixture
def second_device() -> Iterator[None]:
    """A device 'cuda' that shows what code forgets to move (tests/second_device.py)."""
    with _module("second_device.py").second_device():
        yield


@pytest.fixture(scope="session")
def make_world(
    korean: tuple[str, ...], english: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., World]:
    """Build each world once, when first asked for; those with slots share one tokenizer."""
    import torch

    from vocabgraft.models.random_gemma3 import write_random_gemma3
    from vocabgraft.tokenizer.expand import Expansion

    torch.set_num_threads(1)  # two threads on busy cores wait for each other five times as long as they work
    root = tmp_path_factory.mktemp("world")
    made: dict[tuple[bool, str], World] = {}

    def make(tied: bool, place: str = "slots") -> World:
        if (tied, place) not in made:
            base, tokenizer = root / f"{'tied' if tied else 'untied'}-{place}", root / f"tokenizer-{place}"
            write_random_gemma3(base, [*english, *korean[::3]], seed=0, tied=tied)
            if not tokenizer.exists():
                _expand(base, korean, tokenizer, place)
            expansion = Expansion.load(tokenizer / "expansion.json")
            made[tied, place] = World(tied, base, tokenizer, expansion, korean, english)
        return made[tied, place]

    return make


def _expand(base: Path, korean: tuple[str, ...], out: Path, place: str) -> None:
    from vocabgraft.corpus.script import script_pattern
    from vocabgraft.tokenizer.boundary import word_rule
    from vocabgraft.tokenizer.count import count_words
    from vocabgraft.tokenizer.expand import expand_tokenizer
    from vocabgraft.tokenizer.measure import load_tokenizer
    from vocabgraft.tokenizer.select import Limits, select_pieces
    from vocabgraft.tokenizer.train import train_pieces

    hangul = script_pattern("Hangul")
    tokenizer = load_tokenizer(base)
    counts = count_words(korean, word_rule(tokenizer))
    candidates = train_pieces(tokenizer, counts, script=hangul, size=2 * PIECES, min_count=2)
    chosen = select_pieces(base, candidates, counts, Limits(PIECES), place=place)
    expand_tokenizer(base, chosen.pieces, chosen.uses, out, place=place).save(out / "expansion.json")


@pytest.fixture(scope="session", params=["tied", "untied", "tied-append", "untied-append"])
def world(request: pytest.FixtureRequest, make_world: Callable[..., World]) -> World:
    """The tiny world, with one matrix and with two, which keep their shape or grow."""
    tied, _, place = request.param.partition("-")
    return make_world(tied == "tied", place or "slots")


@pytest.fixture(scope="session")
def tied_world(make_world: Callable[[bool], World]) -> World:
    """The tiny world with one matrix, for what does not depend on it."""
    return make_world(True)


@pytest.fixture(scope="session")
def wide(
    korean: tuple[str, ...], english: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[bool], Path]:
    """Folders of random Gemma 3 whose layers divide into groups of 128 columns, which the tiny world's do not."""
    from vocabgraft.models.random_gemma3 import TinyShape, write_random_gemma3

    root = tmp_path_factory.mktemp("wide")
    shape = TinyShape(hidden=128, intermediate=256, heads=4, kv_heads=2)

    def make(tied: bool) -> Path:
        folder = root / ("tied" if tied else "untied")
        if not folder.exists():
            write_random_gemma3(folder, [*english, *korean[::3]], seed=0, tied=tied, shape=shape)
        return folder

    return make


@pytest.fixture(scope="session")
def rounded() -> Callable[..., None]:
    """Write a folder rounded to few bits in the format that llm-compressor writes, by arithmetic of our own.

    Symmetric, one scale a row and group; `spoil` makes the model too sure of itself, by its last norm.
    """

    def write(model: Path, out: Path, bits: int, *, spoil: bool = False) -> None:
        import shutil

        import torch
        from safetensors.torch import load_file, save_file

        found = {}
        for name, weight in load_file(model / "model.safetensors").items():
            if not name.endswith("_proj.weight"):
                found[name] = weight
                continue
            rows, columns = weight.shape
            groups = weight.float().reshape(rows, -1, 128)
            scale = (groups.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).to(torch.bfloat16).float()
            q = (groups / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).reshape(rows, columns)
            unsigned = (q + 2 ** (bits - 1)).long().reshape(rows, -1, 32 // bits)
            words = (unsigned << torch.arange(0, 32, bits)).sum(-1)
            found[f"{name}_packed"] = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
            found[f"{name}_scale"] = scale.squeeze(-1).to(torch.bfloat16)
            found[f"{name}_shape"] = torch.tensor([rows, columns])
        if spoil:
            found["model.norm.weight"] = torch.full_like(found["model.norm.weight"], 60.0)
        shutil.copytree(model, out)
        save_file(found, out / "model.safetensors", {"format": "pt"})
        config = json.loads((out / "config.json").read_text("utf-8"))
        weights = {"num_bits": bits, "group_size": 128, "symmetric": True}
        config["quantization_config"] = {"format": "pack-quantized", "config_groups": {"group_0": {"weights": weights}}}
        (out / "config.json").write_text(json.dumps(config), "utf-8")

    return write
