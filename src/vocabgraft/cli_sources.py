"""`vocabgraft sources`: known data sets and a recipe's own, whether they can be had, and on which terms."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vocabgraft.cli_answer import Json, answer


def sources(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="List this recipe's sources, not the known data sets.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Look whether each can be had now; asks the hub.")] = False,
    as_json: Json = False,
) -> None:
    """Which texts may I train on? Known data sets, or a recipe's, and their terms. Exit code 2: one is missing."""
    rows = _known() if recipe is None else _of_recipe(recipe)
    if check:
        from vocabgraft.corpus.reach import reach

        for row in rows:
            found = reach(row["source"])
            row |= {"status": found.status, "says": found.says, "good": found.good}
    answer(as_json, rows, "\n".join([*map(_text, rows), *_bill(rows)]))
    if recipe is not None and (any(r["refused"] for r in rows) or not all(r.get("good", True) for r in rows)):
        raise typer.Exit(2)


def _known() -> list[dict[str, Any]]:
    from vocabgraft.corpus.sources import catalogue

    return [
        known.model_dump(mode="json", exclude={"text", "needs", "absent"})
        | {"source": f"source:{name}" + (f"/{known.configs[0]}" if len(known.configs) > 1 else "")}
        | {"terms": known.terms}
        for name, known in catalogue().items()
    ]


def _of_recipe(name: str) -> list[dict[str, Any]]:
    from vocabgraft.recipe import load_recipe
    from vocabgraft.steps.sources import recipe_sources

    return recipe_sources(load_recipe(name))


def _text(row: dict[str, Any]) -> str:
    title = row["title"] if "title" in row else f"data.{row['side']}"
    lines = [f"{row['source']}: {title}"]
    terms = f" ({row['terms']})" if row["terms"] else ""
    lines += [f"  {row['license']}{terms}; for: {', '.join(row['uses'])}"] if "uses" in row else []
    lines += [f"  {row[key]}" for key in ("access_note", "note") if row.get(key)]
    lines += [f"  not seen by us: {row['unseen']}"] if row.get("unseen") else []
    lines += [f"  {problem}" for problem in row.get("refused", ())]
    lines += [f"  {row['status']}: {row['says']}"] if "status" in row else []
    return "\n".join(lines)


def _bill(rows: list[dict[str, Any]]) -> list[str]:
    by_license: dict[str, list[str]] = {}
    for row in rows:
        by_license.setdefault(row["license"] + (f" ({row['terms']})" if row["terms"] else ""), []).append(row["source"])
    return ["", "licences:", *(f"  {license}: {', '.join(names)}" for license, names in sorted(by_license.items()))]
