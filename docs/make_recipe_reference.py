"""Write what the code already says: docs/recipe.md from the recipe schema, the table of steps in docs/design.md.

    python docs/make_recipe_reference.py        (or `make docs`; a test fails when either page is out of date)

Types, limits and defaults come from the pydantic models, meanings from the docstrings under the fields (read with
`ast`, since Python drops them), "redo from" from the table of steps: the first step that reads a value is the
first that turns stale when it changes.
"""

from __future__ import annotations

import ast
import inspect
import json
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vocabgraft import recipe, recipe_data, recipe_sections
from vocabgraft.durable import write_text
from vocabgraft.pipeline import STEPS

DOCS = Path(__file__).parent
START, END = "<!-- steps: written by make_recipe_reference.py -->", "<!-- end of steps -->"
_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", types.NoneType: "none"}

_HEAD = """# Recipe reference

Written by `docs/make_recipe_reference.py` from the schema in `src/vocabgraft/recipe_*.py`; do not edit it here.
How to work with recipes is told in [using.md](using.md).

A recipe is a TOML file. An unknown setting is refused with the nearest known one, and all problems are reported at
once: `vocabgraft check my.toml`. A value may be given per budget, `tokens = { smoke = 1024, full = 50_000_000 }`;
`--budget` picks one before anything is validated. `--set KEY=VALUE` changes a value from the command line, stages by
their place: `--set stage.0.tokens=2048`. Paths of data are meant from the working directory.

*Redo from* names the first step that reads a setting. When the setting changes, that step and all that build on it are
stale; a dash means that no result depends on it. `[[stage]]` stands for all seven: stage N is step `3N-stageN`.
"""


def reference() -> str:
    """The whole page docs/recipe.md."""
    meanings = {}
    for module in (recipe, recipe_data, recipe_sections):
        meanings |= field_docs(inspect.getsource(module))
    parts = [_HEAD]
    for path, model, repeated in sections(recipe.Recipe):
        parts.append(_heading(path, repeated) + "\n\n" + _intro(model) + "\n\n" + _table(path, model, meanings))
    return "\n".join(parts)


def step_table() -> str:
    """The 22 steps as a Markdown table, between the marks that docs/design.md holds."""
    rows = [f"| `{s.key}` | {s.title} | {', '.join(s.reads) or '–'} | {', '.join(s.needs) or '–'} |" for s in STEPS]
    head = "| step | does | reads of the recipe | needs |\n|---|---|---|---|"
    return "\n".join([START, head, *rows, END])


def with_steps(page: str) -> str:
    """The page with its table of steps written anew."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return before + step_table() + after


def sections(model: type[BaseModel], path: str = "") -> list[tuple[str, type[BaseModel], bool]]:
    """(path, model, whether it is a list of tables) of a section and all below it, in order."""
    found = [(path, model, path == "stage")]
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner:
            found += sections(inner, f"{path}.{name}".lstrip("."))
    return found


def field_docs(source: str) -> dict[tuple[str, str], str]:
    """(class, field) -> the string literal that stands under the field."""
    found = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, below in zip(node.body, node.body[1:], strict=False):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                found[node.name, field.target.id] = " ".join(str(below.value.value).split())
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for inner in (annotation, *get_args(annotation)):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    return None


def _heading(path: str, repeated: bool) -> str:
    if not path:
        return "## Top level"
    return f"## `[[{path}]]`, seven times" if repeated else f"## `[{path}]`"


def _intro(model: type[BaseModel]) -> str:
    text = " ".join((model.__doc__ or "").split())
    return text.replace("See `load_recipe`.", "").rstrip()


def _table(path: str, model: type[BaseModel], meanings: dict[tuple[str, str], str]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        dotted = f"{path}.{name}".lstrip(".")
        meaning = meanings.get((model.__name__, name), "")
        if _model_in(field.annotation):
            mark = f"[[{dotted}]]" if dotted == "stage" else f"[{dotted}]"
            meaning, kind = meaning or "see below", f"table `{mark}`"
        else:
            kind = describe(field.annotation, field.metadata)
        rows.append(f"| `{name}` | {kind} | {_default(field)} | {meaning} | {redo_from(dotted)} |")
    return "\n".join(["| setting | type | default | meaning | redo from |", "|---|---|---|---|---|", *rows, ""])


def describe(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """A type in words, with its limits: 'whole number > 0', 'list of text, 1 or more'."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return describe(inner[0], list(annotation.__metadata__))
    if origin is Literal:
        words = [f'`"{value}"`' for value in inner]
        return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    if origin in (types.UnionType, Union):
        return ", or ".join(describe(a) for a in inner)
    if origin is tuple:
        least = next((m.min_length for m in metadata if getattr(m, "min_length", None)), 0)
        return f"list of {describe(inner[0])}" + (f"; {least} or more" if least else "")
    if origin is dict:
        return f"table of {describe(inner[1])}"
    limits = [
        f"{sign} {getattr(m, name):g}" for m in _flat(metadata) for name, sign in _LIMITS.items() if _has(m, name)
    ]
    return f"{_PLAIN[annotation]} {' and '.join(limits)}".rstrip() + _pattern(metadata)


def _flat(metadata: list[Any] | tuple[Any, ...]) -> list[Any]:
    """Limits as pydantic keeps them: bare, or inside a FieldInfo when the type is one of a union."""
    return [m for one in metadata for m in (one.metadata if isinstance(one, FieldInfo) else [one])]


def _has(limit: Any, name: str) -> bool:
    return getattr(limit, name, None) is not None


def _pattern(metadata: list[Any] | tuple[Any, ...]) -> str:
    patterns = [m.pattern for m in metadata if getattr(m, "pattern", None)]
    return f", `{patterns[0]}`" if patterns else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "none"
    return f"`{value:_}`" if type(value) is int else f"`{json.dumps(value, ensure_ascii=False)}`"


def redo_from(dotted: str) -> str:
    """The first step that reads a setting or anything in it."""
    for step in STEPS:
        for read in step.reads:
            name = read.replace("stage.0", "stage")
            if name == dotted or name.startswith(f"{dotted}.") or dotted.startswith(f"{name}."):
                return "`3N-stageN`" if dotted.split(".")[0] == "stage" else f"`{step.key}`"
    return "–"


def main() -> None:
    """Write both pages."""
    write_text(DOCS / "recipe.md", reference())
    design = DOCS / "design.md"
    write_text(design, with_steps(design.read_text("utf-8")))


if __name__ == "__main__":
    main()
