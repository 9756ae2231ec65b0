"""Real steps on a real run folder: the data steps in seconds, with the tests' tiny model as the base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vocabgraft.machine import detect
from vocabgraft.pipeline import execute
from vocabgraft.recipe import Recipe, load_recipe
from vocabgraft.run import Run
from vocabgraft.steps.context import Context, Silent

Done = Callable[..., Run]


@pytest.fixture
def recipe(tied_world) -> Callable[..., Recipe]:
    """tiny-cpu with settings, on the tests' tiny model."""

    def load(*settings: str) -> Recipe:
        return load_recipe("tiny-cpu", ["base.kind=folder", f"base.source={tied_world.base}", *settings])

    return load


@pytest.fixture
def done(tmp_path: Path, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> Done:
    """Run the steps up to 'until' and give the run."""
    monkeypatch.chdir(tmp_path)

    def run(*settings: str, until: str = "04") -> Run:
        opened = Run.create(tmp_path / "run", recipe(*settings), "")
        execute(opened, detect(tmp_path), until=until)
        return opened

    return run


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Context]:
    """What a step is given."""

    def make(run: Run, key: str = "51-korean", needs: tuple[str, ...] = ()) -> Context:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        return Context(key, needs, run.recipe, run, out, detect(tmp_path), Silent())

    return make
