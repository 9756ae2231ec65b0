"""Values of a recipe before they are validated: settings of the command line put in, the budget's values picked."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any


def apply_settings(raw: dict[str, Any], settings: Sequence[str]) -> list[str]:
    """Put `KEY=VALUE` settings into a recipe's values, in place; returns what is wrong with them."""
    problems = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            problems.append(f"--set {setting}: write KEY=VALUE, e.g. --set tokenizer.pieces=2048")
            continue
        try:
            value = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            value = text
        try:
            _put(raw, key.strip().split("."), value)
        except (KeyError, IndexError, ValueError, TypeError):
            problems.append(f"--set {key}: no such place in the recipe")
    return problems


def _put(raw: Any, parts: list[str], value: Any) -> None:
    for part in parts[:-1]:
        raw = raw[int(part)] if isinstance(raw, list) else raw.setdefault(part, {})
    if isinstance(raw, list):
        raw[int(parts[-1])] = value
    else:
        raw[parts[-1]] = value


def pick_budget(value: Any, budget: str, budgets: Sequence[str], problems: list[str], path: str = "") -> Any:
    """Each table of budgets replaced by the value of the one in force; a table without it is a problem."""

    def inner(found: Any, name: str) -> Any:
        return pick_budget(found, budget, budgets, problems, f"{path}{name}")

    if isinstance(value, dict):
        if value and set(value) <= set(budgets):
            if budget in value:
                return value[budget]
            problems.append(f"{path}: no value for budget {budget!r}; it has {', '.join(value)}")
            return next(iter(value.values()))
        return {k: inner(v, f".{k}" if path else k) for k, v in value.items()}
    if isinstance(value, list):
        return [inner(v, f"[{i}]") for i, v in enumerate(value)]
    return value
