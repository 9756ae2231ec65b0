"""Controls: any recipe with one thing taken out of it, so that what this thing is worth can be told.

old-tokenizer  the same text, budget and adapters with the base's own tokenizer: the only fair test of an expansion
random-rows    the new rows start at random: what the start is worth
format-only    the base, tuned on the same questions with answers drawn by lot: what knowing the format is worth

The base itself is measured in every run. A control is a recipe of its own (`--set control=old-tokenizer`) with its own
run folder; `vocabgraft compare` tells two runs apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_OPEN = 1e9  # a bound that nothing reaches


def apply_control(raw: dict[str, Any]) -> None:
    """Change a recipe's values, in place, as its `control` says; name and title say it too. Unknown ones: no change."""
    change = CONTROLS.get(str(raw.get("control")))
    if change is None:
        return
    change(raw)
    for key, text in (("name", "{}-{}"), ("title", "{} (control: {})")):
        if isinstance(raw.get(key), str):
            raw[key] = text.format(raw[key], raw["control"])


def _old_tokenizer(raw: dict[str, Any]) -> None:
    """No new pieces. What stages of new rows alone would have read, the first stage of the body reads."""
    raw.setdefault("tokenizer", {})["pieces"] = 0
    raw.setdefault("init", {})["row_untied"] = False
    raw.setdefault("instruct", {})["train"] = ["lora"]
    stages = [s for s in raw.get("stage", []) if isinstance(s, dict)]
    kept = [s for s in stages if "lora" in s.get("train", ())]
    if not kept:
        return  # nothing of the base trains: said by the validation of an empty table
    kept[0]["tokens"] = sum(s.get("tokens", 0) for s in stages if s is kept[0] or s not in kept)
    for stage in kept:
        stage["train"] = [g for g in stage["train"] if not g.endswith(".new")]
    raw["stage"] = kept


def _random_rows(raw: dict[str, Any]) -> None:
    """The gates of the start are opened: they exist to refuse just this."""
    opened = {"max_rise": _OPEN, "max_kl": _OPEN, "norm_range": [0.0, _OPEN]}
    raw["init"] = raw.get("init", {}) | {"method": "random"} | opened


def _format_only(raw: dict[str, Any]) -> None:
    """No pieces, no stages, no text: questions of the same form with answers that teach nothing."""
    _old_tokenizer(raw)
    raw["stage"] = []
    raw["instruct"] |= {"answers": "by lot", "instructions": [], "replay_share": 0.0}


CONTROLS: dict[str, Callable[[dict[str, Any]], None]] = {
    "old-tokenizer": _old_tokenizer,
    "random-rows": _random_rows,
    "format-only": _format_only,
}
