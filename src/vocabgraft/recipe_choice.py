"""Sections of a recipe that say which documents are wanted; `Section` is what all of them are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

#: Presets of corpus/quality.toml.
Quality = Literal[
    "plain",
    "fineweb2-kor_Hang",
    "fineweb2-deu_Latn",
    "fineweb2-ind_Latn",
    "fineweb2-rus_Cyrl",
    "fineweb2-spa_Latn",
    "fineweb2-swh_Latn",
    "fineweb2-tur_Latn",
]
Terms = Literal["non-commercial", "unknown terms", "evaluation only"]


class Section(BaseModel):
    """A frozen table of a recipe; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Select(Section):
    """Documents of the target that are on a topic, out of a corpus that holds all sorts."""

    examples: tuple[str, ...] = ()
    """Sources that are on the topic, of several kinds of text, as in data.target; none: no selection."""
    recall: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Least share of held-out examples that pass; the threshold is even odds, or lower where this asks for it."""
