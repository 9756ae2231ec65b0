"""The notebooks follow the table of steps, hold no logic, and run: all 22 in order, without Jupyter."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vocabgraft.pipeline import KEYS, PHASES

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*/*.ipynb"))
MOST_LINES = 8
# IPython comes with Jupyter and is not needed for anything else; without it a picture is checked to be one.
WITHOUT_IPYTHON = """
import importlib.util, sys, types
if importlib.util.find_spec("IPython") is None:
    def SVG(data):
        assert data.startswith("<svg"), data[:40]
    display = types.ModuleType("IPython.display")
    display.SVG = SVG
    sys.modules |= {"IPython": types.ModuleType("IPython"), "IPython.display": display}
"""


def cells(path: Path, kind: str | None = None) -> list[dict]:
    """The cells of a notebook, of one kind or all."""
    return [c for c in json.loads(path.read_text("utf-8"))["cells"] if kind in (None, c["cell_type"])]


def code(path: Path) -> list[str]:
    """The sources of the code cells."""
    return ["".join(cell["source"]) for cell in cells(path, "code")]


def key_of(path: Path) -> str:
    """The step of a notebook: its phase's digit, and the second digit of its own number."""
    number = path.parent.name.removeprefix("phase")[0] + path.name[1]
    (key,) = [k for k in KEYS if k.startswith(f"{number}-")]
    return key


def short(path: Path) -> str:
    """How pytest names a notebook."""
    return f"{path.parent.name}/{path.stem}"


def test_there_is_one_notebook_for_every_step_in_order() -> None:
    assert list(KEYS) == [key_of(path) for path in NOTEBOOKS]
    assert {f"phase{n}_{name.replace(' ', '_')}" for n, name in enumerate(PHASES)} == {p.parent.name for p in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_a_notebook_does_the_step_of_its_name_and_no_other(path: Path) -> None:
    assert [key_of(path)] == re.findall(r'until="([^"]+)"', "\n".join(code(path)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_a_notebook_defines_nothing_and_its_cells_are_short(path: Path) -> None:
    for source in code(path):
        defined = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Lambda)]
        assert defined == []
        assert len(source.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_a_notebook_says_why_before_and_what_to_look_for_after(path: Path) -> None:
    texts = ["".join(cell["source"]) for cell in cells(path, "markdown")]
    assert texts[0].startswith("# ")
    assert key_of(path) in texts[0]
    assert texts[-1].startswith("## What to look for")
    assert cells(path)[0]["cell_type"] == cells(path)[-1]["cell_type"] == "markdown"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_the_recipe_is_switched_in_one_cell(path: Path) -> None:
    switching = [source for source in code(path) if "tiny-cpu" in source or "korean-gemma-270m" in source]
    assert len(switching) == 1
    assert switching[0].startswith('RECIPE = "tiny-cpu"')


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_a_notebook_is_nbformat_4_5_and_stores_no_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    ids = [cell["id"] for cell in notebook["cells"]]
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", i) for i in ids)
    for cell in cells(path, "code"):
        assert (cell["execution_count"], cell["outputs"]) == (None, [])
        assert set(cell) == {"cell_type", "execution_count", "id", "metadata", "outputs", "source"}


@pytest.mark.slow
def test_all_22_notebooks_run_in_order_on_the_tiny_recipe(tmp_path: Path) -> None:
    # Where a kernel stands: in the notebook's own folder. The run goes into `runs/` two folders up.
    place = tmp_path / "notebooks" / "phase0_data_preparation"
    place.mkdir(parents=True)
    script = tmp_path / "all.py"
    script.write_text(WITHOUT_IPYTHON + "\n".join("\n".join(code(path)) for path in NOTEBOOKS), "utf-8")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}

    done = subprocess.run(
        [sys.executable, str(script)], cwd=place, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs" / "tiny-cpu"
    assert list(KEYS) == sorted(p.parent.name for p in run.glob("*/manifest.json"))
    assert (run / "report.html").is_file()
    assert not (run / "aside").exists()
