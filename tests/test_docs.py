"""The pages say what the code does: generated parts are up to date, commands and links exist, examples run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer

from vocabgraft.cli import app
from vocabgraft.recipe import load_recipe, shipped_recipes

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
GUIDES = [DOCS / "using.md", DOCS / "ko" / "using.md"]


def generator() -> ModuleType:
    """The script that writes the generated parts."""
    spec = importlib.util.spec_from_file_location("make_recipe_reference", DOCS / "make_recipe_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def example(page: Path, name: str) -> str:
    """The Python block after `<!-- example: NAME -->`."""
    (source,) = re.findall(rf"<!-- example: {name} -->\n```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    return source


def commands(page: Path) -> list[list[str]]:
    """The words of every vocabgraft command in the page's code blocks, without comments."""
    blocks = re.findall(r"```\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [shlex.split(line, comments=True) for line in lines if re.match(r"(\w+=\S+ )?vocabgraft \w", line)]
    return [words[words.index("vocabgraft") + 1 :] for words in found]


def test_the_recipe_reference_is_up_to_date_with_the_schema() -> None:
    assert generator().reference() == (DOCS / "recipe.md").read_text("utf-8"), "run `make docs`"


def test_the_table_of_steps_in_the_design_is_up_to_date() -> None:
    page = (DOCS / "design.md").read_text("utf-8")
    assert generator().with_steps(page) == page, "run `make docs`"


def test_the_design_stays_short() -> None:
    assert len((DOCS / "design.md").read_text("utf-8").splitlines()) < 200


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, place = target.partition("#")
        if not path:
            assert place in headings, target
        elif "://" not in path:
            assert (page.parent / path).exists(), target


@pytest.mark.parametrize("page", GUIDES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_guides_use_commands_and_options_that_exist(page: Path) -> None:
    known = typer.main.get_command(app).commands
    assert len(commands(page)) > 5
    for words in commands(page):
        options = {name for parameter in known[words[0]].params for name in parameter.opts}
        used = {word for word in words[1:] if word.startswith("--")}
        assert used <= options, words


@pytest.mark.parametrize("page", GUIDES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_recipes_settings_and_budgets_of_the_guides_are_valid(page: Path) -> None:
    for words in commands(page):
        if len(words) > 1 and words[1] in shipped_recipes():
            given = {
                name: [words[i + 1] for i, word in enumerate(words) if word == name] for name in ("--set", "--budget")
            }
            load_recipe(words[1], given["--set"], next(iter(given["--budget"]), None))


def test_the_library_example_grafts_pieces_onto_a_tiny_base(tmp_path: Path, korean: tuple[str, ...]) -> None:
    from vocabgraft.models.random_gemma3 import gemma_style_vocabulary
    from vocabgraft.tokenizer.vocabulary import write_tokenizer

    write_tokenizer(gemma_style_vocabulary(korean), tmp_path / "base", None)
    (tmp_path / "korean.txt").write_text("\n".join(korean), "utf-8")

    source = example(DOCS / "using.md", "expand") + "import sys; assert 'torch' not in sys.modules"
    command = [sys.executable, "-X", "utf8", "-c", source]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, encoding="utf-8")

    pieces, fertility, english = done.stdout.splitlines()
    before, after = (float(x) for x in re.findall(r"\d+\.\d+", fertility))
    assert pieces.startswith("200 new pieces")
    assert after < before
    assert english == "ids changed in English text: 0"
    assert (tmp_path / "expanded" / "tokenizer.model").is_file()


def test_the_ledger_example_reads_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vocabgraft.durable import write_json

    step = tmp_path / "runs" / "tiny-cpu" / "51-korean"
    step.mkdir(parents=True)
    write_json(step.parent / "recipe.resolved.json", {"name": "tiny-cpu"})
    write_json(step / "manifest.json", {"step": "51-korean", "metrics": {"bits_per_byte": {"change": -0.25}}})
    monkeypatch.chdir(tmp_path)

    exec(example(DOCS / "using.md", "ledger"), {})

    assert capsys.readouterr().out == "-0.25\n"


def test_the_guide_shows_the_error_that_is_really_printed() -> None:
    from vocabgraft.errors import RecipeError

    with pytest.raises(RecipeError) as raised:
        load_recipe("tiny-cpu", ["tokenizer.peces=3", "init.method=hybird"])
    assert f"vocabgraft: {raised.value}" in (DOCS / "using.md").read_text("utf-8")
