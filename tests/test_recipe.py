"""Recipes: what ships is valid, what is wrong is said at once, nothing heavy is imported."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from vocabgraft.corpus.script import script_pattern
from vocabgraft.corpus.source import locate
from vocabgraft.errors import RecipeError
from vocabgraft.recipe import load_recipe, presets, recipe_from_resolved, recipe_path, shipped_recipes
from vocabgraft.recipe_sections import BUDGETS

SHIPPED = shipped_recipes()


def tables(value):
    if isinstance(value, dict):
        if value and set(value) <= set(BUDGETS):
            yield value
        for inner in value.values():
            yield from tables(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from tables(inner)


def budgets_of(path: Path) -> list[str]:
    found = [set(t) for t in tables(tomllib.loads(path.read_text("utf-8")))]
    return sorted(set.intersection(*found)) if found else ["smoke"]


@pytest.fixture
def written(tmp_path):
    """Write a changed copy of a shipped recipe."""

    def write(*changes: tuple[str, str], name: str = "tiny-cpu") -> str:
        text = SHIPPED[name].read_text("utf-8")
        for before, after in changes:
            assert before in text
            text = text.replace(before, after, 1)
        path = tmp_path / "mine.toml"
        path.write_text(text, "utf-8")
        return str(path)

    return write


def problems_of(source, settings=(), budget=None):
    with pytest.raises(RecipeError) as e:
        load_recipe(source, settings, budget)
    return e.value.problems


def test_the_promised_recipes_ship():
    wanted = {"korean-gemma-270m", "korean-medgemma-4b", "korean-medgemma-27b", "any-language", "tiny-cpu"}
    assert wanted <= set(SHIPPED)


@pytest.mark.parametrize(("name", "budget"), [(n, b) for n, p in SHIPPED.items() for b in budgets_of(p)])
def test_a_shipped_recipe_is_valid_for_each_of_its_budgets(name, budget):
    recipe = load_recipe(name, budget=budget)
    assert recipe.name == name
    assert recipe.budget == budget
    assert "output.old" in recipe.stage[3].train
    script_pattern(recipe.data.script)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_recipe_is_valid_as_it_stands_and_has_its_own_budget(name):
    raw = tomllib.loads(SHIPPED[name].read_text("utf-8"))
    assert load_recipe(name).budget == raw["budget"]
    assert all(raw["budget"] in table for table in tables(raw))


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_sources_of_the_package_and_the_hub_are_well_formed(name):
    recipe = load_recipe(name)
    for source in (*recipe.data.target, *recipe.data.replay):
        if source.startswith(("samples:", "hub:")):
            assert locate(source).name


@pytest.mark.parametrize("name", ["korean-medgemma-4b", "korean-medgemma-27b"])
def test_a_gated_base_says_how_to_get_it(name):
    base = load_recipe(name).base
    assert base.kind == "hub"
    repository, _, commit = base.source.partition("@")
    assert f"https://huggingface.co/{repository}" in base.gate
    assert re.fullmatch("[0-9a-f]{40}", commit)
    assert "--set base.kind=folder" in base.gate
    assert "Health AI Developer Foundations" in base.license


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_no_shipped_recipe_trains_on_kormedmcqa(name):
    recipe = load_recipe(name)
    trained = (*recipe.data.target, *recipe.data.replay, *recipe.instruct.questions, *recipe.instruct.instructions)
    assert not any("kormedmcqa" in source.lower() for source in trained)


def test_all_problems_are_said_at_once_with_suggestions(written):
    source = written(
        ("pieces = 200", "peices = 200"),
        ('train = ["output.new"]', 'train = ["output.nwe"]'),
        ("lr = { lora = 2e-4 }", "lr = { new = 2e-4 }"),
        ('language = "ko"', 'langauge = "ko"'),
        ("rank = 4", "rank = -4"),
    )
    said = "\n".join(problems_of(source))
    assert "tokenizer.peices: unknown setting; did you mean 'pieces'?" in said
    assert "tokenizer.pieces: missing" in said
    assert "'output.nwe' is not one of" in said
    assert "did you mean 'output.new'?" in said
    assert "trains 'lora' but lr.lora is not given" in said
    assert "data.langauge: unknown setting; did you mean 'language'?" in said
    assert "lora.rank:" in said
    assert "-4" in said


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("tiny-cpu", ["tokenizer.method=sentencepiece", "tokenizer.cross_word=true"], "cross_word works with method"),
        ("any-language", ["data.script=Thai", "tokenizer.drop_names=true"], "for Hangul alone, not Thai"),
        ("any-language", ["data.script=Thai", "tokenizer.drop_particles=true"], "for Hangul alone, not Thai"),
    ],
)
def test_settings_that_would_do_nothing_are_problems(name, settings, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe(name, settings)


def test_the_message_counts_the_problems(written):
    source = written(("rank = 4", "rank = -4"))
    with pytest.raises(RecipeError, match=r"mine\.toml has 1 problem\n"):
        load_recipe(source)


def test_a_setting_replaces_a_value_of_any_kind():
    recipe = load_recipe(
        "tiny-cpu",
        [
            "tokenizer.pieces=64",
            'data.target=["a.jsonl"]',
            "stage.0.lr.new=2e-4",
            "title=My own",
            "base.tied=false",
        ],
    )
    assert recipe.tokenizer.pieces == 64
    assert recipe.data.target == ("a.jsonl",)
    assert recipe.stage[0].lr.new == 2e-4
    assert recipe.title == "My own"
    assert recipe.base.tied is False


def test_a_setting_may_open_a_section_the_file_leaves_out():
    assert load_recipe("korean-gemma-270m", ["lora.rank=8"]).lora.rank == 8


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("tokenizer.pieces", "write KEY=VALUE"),
        ("stage.9.tokens=5", "no such place"),
        ("stage.first.tokens=5", "no such place"),
        ("tokenizer.peices=5", "did you mean 'pieces'"),
        ("nothing.here=5", "nothing: unknown setting"),
        ("tokenizer.pieces=many", "tokenizer.pieces"),
    ],
)
def test_a_wrong_setting_is_a_problem(setting, said):
    assert said in "\n".join(problems_of("tiny-cpu", [setting]))


def test_a_budget_picks_its_values():
    smoke, demo = (load_recipe("korean-gemma-270m", budget=b) for b in ("smoke", "demo"))
    assert (smoke.tokenizer.pieces, demo.tokenizer.pieces) == (512, 1024)
    assert smoke.stage[0].tokens < demo.stage[0].tokens


def test_a_budget_may_be_a_setting():
    assert load_recipe("korean-gemma-270m", ["budget=smoke"]).tokenizer.pieces == 512


def test_a_budget_without_values_names_those_that_have_some():
    said = problems_of("korean-medgemma-4b", budget="demo")
    assert any("tokenizer.min_count: no value for budget 'demo'; it has short, full" in p for p in said)


def test_an_unknown_budget_is_one_problem():
    (said,) = problems_of("korean-gemma-270m", budget="dmeo")
    assert "did you mean 'demo'?" in said


def test_yaml_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lr: 2e-4\n", "utf-8")
    (said,) = problems_of(str(path))
    assert "recipes are TOML" in said


def test_what_is_not_toml_is_said_with_its_place(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("name = \n", "utf-8")
    (said,) = problems_of(str(path))
    assert said.startswith("not TOML")
    assert "line 1" in said


def test_what_is_not_utf8_is_said_with_its_place(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes("title = '혈압'".encode("cp949"))
    assert problems_of(str(path)) == ["not UTF-8 at byte 9"]


def test_a_missing_file_names_what_ships(tmp_path):
    (said,) = problems_of(str(tmp_path / "none.toml"))
    assert "no such file" in said
    assert "korean-gemma-270m" in said


def test_a_misspelt_name_gets_the_nearest():
    (said,) = problems_of("korean-gema-270m")
    assert "did you mean 'korean-gemma-270m'?" in said
    (said,) = problems_of("zzz")
    assert "tiny-cpu" in said


def test_a_shipped_name_and_its_file_are_the_same_recipe():
    assert load_recipe("tiny-cpu") == load_recipe(str(recipe_path("tiny-cpu")))


def test_the_resolved_recipe_comes_back_as_it_was():
    recipe = load_recipe("korean-gemma-270m")
    assert recipe_from_resolved(recipe.model_dump(mode="json"), "run") == recipe


def test_a_recipe_cannot_be_changed():
    recipe = load_recipe("tiny-cpu")
    with pytest.raises(ValidationError):
        recipe.tokenizer.pieces = 5


@pytest.mark.parametrize(
    "modules",
    [
        "vocabgraft.recipe, vocabgraft.pipeline",
        "vocabgraft.doctor",
        "vocabgraft.audit",
        "vocabgraft.forecast",
    ],
)
def test_no_heavy_package_is_imported_to_plan_or_to_look(modules):
    code = f"import sys, {modules}; print(sorted({{'torch', 'transformers', 'peft'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plan_imports_no_heavy_package():
    code = (
        "import sys; from vocabgraft.recipe import load_recipe; from vocabgraft.pipeline import plan;"
        "assert len(plan(load_recipe('tiny-cpu'))) == 22; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_preset_stands_for_its_stages() -> None:
    plain = load_recipe("korean-gemma-270m")
    assert load_recipe("korean-gemma-270m", ["preset=eeve7"]).stage == plain.stage
    lean = load_recipe("korean-gemma-270m", ["preset=lean", "init.row_untied=true", "stage.0.epochs=7"], "short")
    assert [s.train for s in lean.stage] == [("output.new",), ("input.new", "output.new", "lora"), ("lora",)]
    assert (lean.stage[0].epochs, lean.stage[0].tokens) == (7, 65_536)
    assert lean.section("stage.1")["name"] == lean.stage[1].name
    assert lean.section("stage.6") is None


@pytest.mark.parametrize("name", sorted(presets()))
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_preset_is_a_recipe_in_every_budget(name: str, budget: str) -> None:
    recipe = load_recipe("korean-gemma-270m", [f"preset={name}", "init.row_untied=true"], budget)
    assert 1 <= len(recipe.stage) <= 7


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["preset=leen"], "preset: 'leen' is none of cpt, eeve7, lean, qlora"),
        (["preset=lean"], "set init.row_untied = true"),
        (
            ["preset=lean", "init.row_untied=true", "stage.0.tokens=2047"],
            "holds one step of them out, so it needs two steps, 2,048 tokens; it has 2,047",
        ),
        (["stage.0.epochs=2"], "epochs, sweep: for output rows alone; training input.new moves hidden states"),
        (["stage.3.sweep=[1e-3]", "init.row_untied=true"], "sweep, pull: for stages that train output.new alone"),
        (['stage.3.train=["output.old","output.low"]', "stage.3.lr.lora=0.1"], "take one of them"),
        (["stage.0.retain=1.0"], "retain: without 'lora' the body stands still"),
    ],
)
def test_stages_that_cannot_be_are_refused(settings: list[str], complaint: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(complaint)):
        load_recipe("korean-gemma-270m", settings)


def test_a_recipe_has_a_preset_or_stages(tmp_path: Path) -> None:
    text = recipe_path("tiny-cpu").read_text("utf-8")
    (tmp_path / "both.toml").write_text('preset = "lean"\n' + text, "utf-8")
    with pytest.raises(RecipeError, match="a recipe has one of them"):
        load_recipe(str(tmp_path / "both.toml"))
    before, _, rest = text.partition("[[stage]]")
    alone = before + "[lora]" + rest.partition("[lora]")[2]
    (tmp_path / "alone.toml").write_text('preset = "cpt"\n' + alone, "utf-8")
    assert len(load_recipe(str(tmp_path / "alone.toml")).stage) == 1
