"""A recipe: everything that decides the result, as data. TOML in, frozen models out, torch never imported.

TOML and not YAML: `yaml.safe_load("lr: 2e-4")` gives a string and `no` gives False. Unknown keys are refused
with the nearest known one, and all problems are reported at once. What a *machine* decides (device, threads,
micro-batch) is not here and never enters a fingerprint.

A value may differ by budget: `tokens = { smoke = 2_000, demo = 12_000 }`; the budget in force picks one before
anything is validated, so the resolved recipe holds plain numbers.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from vocabgraft.errors import RecipeError
from vocabgraft.recipe_controls import apply_control
from vocabgraft.recipe_data import Data, Scale, Section
from vocabgraft.recipe_errors import explain
from vocabgraft.recipe_sections import (
    BUDGETS,
    Base,
    BudgetName,
    Deploy,
    Evaluate,
    Init,
    Instruct,
    Lora,
    Stage,
    Tokenizer,
    Training,
    Watch,
)
from vocabgraft.recipe_values import apply_settings, pick_budget


class Recipe(Section):
    """A whole job. See `load_recipe`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    title: str
    budget: BudgetName = "demo"
    control: Literal["old-tokenizer", "random-rows", "format-only"] | None = None
    """What is taken out of the recipe, so that its worth can be told (`recipe_controls.py`)."""
    base: Base
    data: Data
    tokenizer: Tokenizer
    init: Init = Init()
    training: Training = Training()
    watch: Watch = Watch()
    stage: tuple[Stage, ...] = Field(max_length=7)
    lora: Lora = Lora()
    instruct: Instruct
    evaluate: Evaluate = Evaluate()
    deploy: Deploy
    scale: Scale = Scale()

    @model_validator(mode="after")
    def _something_trains(self) -> Recipe:
        if not self.stage and self.control != "format-only":
            raise ValueError("stage: at least one; every recipe but the control 'format-only' trains something")
        groups = {g for train in (*(s.train for s in self.stage), self.instruct.train) for g in train}
        if not self.tokenizer.pieces and (new := sorted(g for g in groups if g.endswith(".new"))):
            raise ValueError(f"tokenizer.pieces = 0 leaves no new row, but {', '.join(new)} would train")
        return self

    @model_validator(mode="after")
    def _kiwi_reads_korean(self) -> Recipe:
        spec = self.tokenizer
        if (spec.drop_names or spec.drop_particles) and self.data.script != "Hangul":
            raise ValueError(f"tokenizer.drop_names, drop_particles: for Hangul alone, not {self.data.script}")
        return self

    @model_validator(mode="after")
    def _only_what_is_tied_can_be_untied(self) -> Recipe:
        if self.init.row_untied and not self.base.tied:
            raise ValueError(
                "init.row_untied: for tied bases alone; here the two matrices are apart (base.tied = false)"
            )
        return self

    @model_validator(mode="after")
    def _kept_hidden_states_are_those_of_the_rows(self) -> Recipe:
        kept = [s.name for s in self.stage if s.cached]
        if kept and self.base.tied and not self.init.row_untied:
            raise ValueError(
                f"stage {kept[0]!r} keeps hidden states, but on a tied base training an output row moves the input "
                "too: set init.row_untied = true, or leave epochs and sweep out"
            )
        step = max(self.training.tokens_per_step, self.training.window)
        small = [s for s in self.stage if s.cached and s.train == ("output.new",) and s.tokens < 2 * step]
        if small:
            raise ValueError(
                f"stage {small[0].name!r} goes over kept hidden states and holds one step of them out, so it needs two "
                f"steps, {2 * step:,} tokens; it has {small[0].tokens:,}: give it more, or lower tokens_per_step"
            )
        return self

    @model_validator(mode="after")
    def _layers_divide_into_groups(self) -> Recipe:
        shape = self.base.shape
        widths = {"hidden": shape.hidden, "intermediate": shape.intermediate, "heads x head_dim": shape.attention}
        odd = [f"{name} = {width:,}" for name, width in widths.items() if width % 128]
        if self.deploy.compress.methods and odd:
            raise ValueError(
                f"deploy.compress.methods: {odd[0]} of base.shape is no multiple of 128, a group of weights"
            )
        return self

    def section(self, dotted: str) -> Any:
        """The resolved value at `data.target` or `stage.3`, as plain JSON types; None for a stage that is not there."""
        value: Any = self.model_dump(mode="json")
        for part in dotted.split("."):
            if isinstance(value, list) and int(part) >= len(value):
                return None
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value


def shipped_recipes() -> dict[str, Path]:
    """Name -> path of the recipes inside the package."""
    folder = Path(str(resources.files("vocabgraft") / "recipes"))
    return {p.stem: p for p in sorted(folder.glob("*.toml"))}


def recipe_path(source: str) -> Path:
    """The file behind a shipped name or a path."""
    shipped = shipped_recipes()
    if source in shipped:
        return shipped[source]
    path = Path(source)
    if path.suffix == ".toml" or path.exists():
        if path.suffix in {".yaml", ".yml"}:
            raise RecipeError(source, ["recipes are TOML; YAML reads 2e-4 as text and `no` as false"])
        if path.is_file():
            return path
        raise RecipeError(source, [f"no such file; shipped recipes are {', '.join(shipped)}"])
    near = difflib.get_close_matches(source, shipped, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; shipped are {', '.join(shipped)}"
    raise RecipeError(source, [f"no recipe of this name{hint}"])


def load_recipe(source: str, set_: Sequence[str] = (), budget: str | None = None) -> Recipe:
    """Read a recipe by shipped name or path, apply `KEY=VALUE` settings and a budget, validate everything.

    Values of settings are TOML (`data.target='["a.jsonl"]'`); what does not parse as TOML is text. Relative
    data paths of a recipe file are meant from the working directory. Raises RecipeError with every problem.
    """
    path = recipe_path(source)
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as e:
        raise RecipeError(source, [f"not TOML: {e}"]) from e
    except UnicodeDecodeError as e:
        raise RecipeError(source, [f"not UTF-8 at byte {e.start}"]) from e
    problems = preset_stages(raw, set_)
    problems += apply_settings(raw, [s for s in set_ if not s.startswith("preset=")])
    if budget is not None:
        raw["budget"] = budget
    chosen = str(raw.get("budget", "demo"))
    # An unknown budget is one problem, not one for every value that depends on it.
    raw = pick_budget(raw, chosen, BUDGETS, problems if chosen in BUDGETS else [])
    apply_control(raw)
    return _validate(raw, source, problems)


def presets() -> dict[str, Path]:
    """Name -> path of the shipped tables of stages."""
    folder = Path(str(resources.files("vocabgraft") / "presets"))
    return {p.stem: p for p in sorted(folder.glob("*.toml"))}


def preset_stages(raw: dict[str, Any], settings: Sequence[str]) -> list[str]:
    """Put the stages that `preset` names in the place of `[[stage]]`, in place; returns what is wrong.

    A recipe has either; `--set preset=lean` replaces the stages of any recipe.
    """
    named, asked = (
        raw.pop("preset", None),
        [s.partition("=")[2].strip("\"'") for s in settings if s.startswith("preset=")],
    )
    if named is None and not asked:
        return []
    if not asked and "stage" in raw:
        return [f"preset: {named!r} and [[stage]] tables; a recipe has one of them"]
    name, known = str(asked[-1] if asked else named), presets()
    if name not in known:
        return [f"preset: {name!r} is none of {', '.join(known)}"]
    raw |= tomllib.loads(known[name].read_text("utf-8"))
    return []


def recipe_from_resolved(resolved: dict[str, Any], source: str) -> Recipe:
    """The recipe a run folder recorded."""
    return _validate(resolved, source, [])


def _validate(raw: dict[str, Any], source: str, problems: list[str]) -> Recipe:
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as e:
        raise RecipeError(source, problems + explain(e.errors(), Recipe)) from e
    if problems:
        raise RecipeError(source, problems)
    return recipe
