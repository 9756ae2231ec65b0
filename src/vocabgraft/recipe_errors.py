"""Say what is wrong with a recipe: one line a problem, with its place, what was found and the nearest right name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel


def explain(errors: Sequence[Any], root: type[BaseModel]) -> list[str]:
    """One line an error; a list that is too short only because its items are wrong is not a second error."""
    lines = []
    for error in errors:
        loc = error["loc"]
        if error["type"] == "too_short" and any(o["loc"][: len(loc)] == loc and o is not error for o in errors):
            continue
        lines.append(_explain(error, root))
    return lines


def _explain(error: Any, root: type[BaseModel]) -> str:
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error["loc"]).lstrip(".")
    if error["type"] == "extra_forbidden":
        known = _fields_at(error["loc"][:-1], root)
        near = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(known)}"
        return f"{where}: unknown setting{hint}"
    if error["type"] == "literal_error":
        allowed = [a.strip(" '") for a in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
        near = difflib.get_close_matches(str(error["input"]), allowed, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{where}: {error['input']!r} is not one of {error['ctx']['expected']}{hint}"
    if error["type"] == "missing":
        return f"{where}: missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" + (f" (found {error['input']!r})" if _is_plain(error["input"]) else "")


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _fields_at(loc: tuple[Any, ...], root: type[BaseModel]) -> list[str]:
    """Field names of the section an error points into."""
    model: Any = root
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type)]
        model = next(a for a in inner if issubclass(a, BaseModel))
    return sorted(model.model_fields)
