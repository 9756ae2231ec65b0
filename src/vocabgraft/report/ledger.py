"""Reads what a run wrote down: its recipe, its manifests and its events. Nothing is measured here.

    runs/NAME/  recipe.resolved.json   events.jsonl   31-stage1/manifest.json   41-instruct/manifest.json ...

Every picture, table and sentence of the report comes from this one object, so a number that is in no
manifest (nor in bakeoff.json) cannot appear. Any metric may be missing (a step not run yet, an older version):
`Ledger.find` then gives None and the part of the report that needs it is left out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vocabgraft.errors import RunError

_STEP_FOLDER = re.compile(r"\d\d-[a-z0-9-]+")
_STAGE = re.compile(r"3\d-stage(\d)")
_MANIFEST_SHAPE: dict[str, type] = {
    "metrics": dict,
    "inputs": dict,
    "versions": dict,
    "machine": dict,
    "outputs": list,
    "licences": list,
}


@dataclass(frozen=True)
class Ledger:
    """One run: `manifests` by step key in step order, `events` in the order they were written, and what `vocabgraft
    bakeoff` wrote, if it was asked."""

    name: str
    recipe: dict[str, Any]
    manifests: dict[str, dict[str, Any]]
    events: list[dict[str, Any]]
    bakeoff: dict[str, Any] = field(default_factory=dict)

    def find(self, step: str, *path: str) -> Any:
        """The metric at a path, e.g. `find("22-initialise", "bits_per_byte", "target", "base")`, or None."""
        value: Any = self.manifests.get(step, {}).get("metrics")
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def setting(self, *path: str) -> str:
        """A text of the recipe, e.g. `setting("base", "name")`; empty when it is not there."""
        value: Any = self.recipe
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return value if isinstance(value, str) else ""


def read_ledger(folder: Path) -> Ledger:
    """Read a run folder. A step without a manifest is not done and is not in the ledger.

    The last line of `events.jsonl` may be cut off (the run was killed while writing) and is dropped; a damaged
    line before it becomes an event `unreadable`, so the report shows it. Raises RunError for a folder that is
    not a run and for a damaged recipe or manifest.
    """
    folder = Path(folder).resolve()
    recipe_file = folder / "recipe.resolved.json"
    if not recipe_file.is_file():
        raise RunError(f"{folder}: not a run folder, it has no recipe.resolved.json; give a folder like runs/NAME")
    bakeoff = folder / "bakeoff.json"
    found = sorted(p for p in folder.glob("*/manifest.json") if _STEP_FOLDER.fullmatch(p.parent.name))
    return Ledger(
        name=folder.name,
        recipe=_json_object(recipe_file, "write it anew with `vocabgraft run RECIPE`"),
        manifests={path.parent.name: _manifest(path) for path in found},
        events=_events(folder / "events.jsonl"),
        bakeoff=_json_object(bakeoff, "run `vocabgraft bakeoff` again") if bakeoff.is_file() else {},
    )


def number(value: Any) -> float | None:
    """A measured number as float (NaN and infinity included: a diverged loss is a result); else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def stages(ledger: Ledger) -> list[tuple[str, str]]:
    """Step key and short label of every finished training step: `("31-stage1", "stage 1")`, …, instruct."""
    found = [(key, f"stage {m.group(1)}") for key in ledger.manifests if (m := _STAGE.fullmatch(key))]
    return found + ([("41-instruct", "instruct")] if "41-instruct" in ledger.manifests else [])


def bits_path(ledger: Ledger) -> list[tuple[str, float | None, float | None]]:
    """Bits per byte (label, target, replay): base, initialised, each stage, instruct, final.

    What was not measured is None; a point with neither number is left out. The final point may come from a
    longer text than the rest: see `final_on_other_text`.
    """
    start = {side: ledger.find("22-initialise", "bits_per_byte", side) or {} for side in ("target", "replay")}
    points: list[tuple[str, float | None, float | None]] = [
        (label, _at(start["target"], label), _at(start["replay"], label)) for label in ("base", "initialised")
    ]
    if points[0][1:] == (None, None):
        points[0] = ("base", *_final("base", ledger))
    for key, label in stages(ledger):
        bits = ledger.find(key, "bits_per_byte")
        points.append((label, _at(bits, "target"), _at(bits, "replay")))
    points.append(("final", *_final("final", ledger)))
    return [(label, target, replay) for label, target, replay in points if (target, replay) != (None, None)]


def final_on_other_text(ledger: Ledger) -> bool:
    """Whether the final evaluation read other text than the probe after each stage: its base level differs."""
    probe = [number(ledger.find("22-initialise", "bits_per_byte", side, "base")) for side in ("target", "replay")]
    pairs = zip(probe, _final("base", ledger), strict=True)
    return any(a is not None and b is not None and abs(a - b) > 1e-6 * max(abs(a), abs(b)) for a, b in pairs)


def _final(which: str, ledger: Ledger) -> tuple[float | None, float | None]:
    target, replay = (number(ledger.find(key, "bits_per_byte", which)) for key in ("51-korean", "52-english"))
    return target, replay


def _at(values: Any, key: str) -> float | None:
    return number(values.get(key)) if isinstance(values, dict) else None


def _manifest(path: Path) -> dict[str, Any]:
    remedy = f"redo the step with `vocabgraft run RECIPE --from {path.parent.name}`"
    manifest = {k: v for k, v in _json_object(path, remedy).items() if v is not None}
    for name, kind in _MANIFEST_SHAPE.items():
        if not isinstance(manifest.get(name, kind()), kind):
            found = type(manifest[name]).__name__
            raise RunError(f"{path}: damaged, {name!r} should be a {kind.__name__}, found {found}; {remedy}")
    return manifest


def _json_object(path: Path, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as e:  # ValueError: not JSON, not UTF-8
        raise RunError(f"{path}: damaged, {e}; {remedy}") from e
    if not isinstance(value, dict):
        raise RunError(f"{path}: damaged, a JSON object is expected, found {type(value).__name__}; {remedy}")
    return value


def _events(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    events: list[dict[str, Any]] = []
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            events.append(event)
        elif any(rest.strip() for rest in lines[i:]):
            events.append({"event": "unreadable", "note": f"line {i} of events.jsonl is damaged"})
    return events
