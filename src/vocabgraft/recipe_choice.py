"""Sections of a recipe that say which documents are wanted; `Section` is what all of them are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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

    method: Literal["all", "lexicon", "classifier"] = "all"
    """all: no selection. lexicon: by the share of words that begin like a term of the dictionary. classifier: by runs
    of letters, learnt from `examples` against the target itself."""
    examples: tuple[str, ...] = ()
    """Sources that are on the topic, as in data.target; held-out ones of them set the threshold."""
    recall: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Share of the held-out examples that must pass."""

    @model_validator(mode="after")
    def _a_choice_needs_examples(self) -> Select:
        if self.method != "all" and not self.examples:
            raise ValueError(f"method = {self.method!r} needs examples: sources that are on the topic")
        return self
