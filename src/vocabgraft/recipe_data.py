"""Sections of a recipe about texts: which are wanted, how they are kept, who works on them; and what a section is."""

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
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A frozen table of a recipe; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Select(Section):
    """Documents of the target that are on a topic, out of a corpus that holds all sorts."""

    examples: tuple[str, ...] = ()
    """Sources that are on the topic, of several kinds of text, as in data.target; none: no selection."""
    recall: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Least share of held-out examples that pass; the threshold is even odds, or lower where this asks for it."""


class Data(Section):
    """Corpora of the target language and of what must be kept (replay), and the dictionary."""

    language: str
    script: str
    target: tuple[str, ...] = Field(min_length=1)
    replay: tuple[str, ...] = Field(min_length=1)
    dictionary: tuple[str, ...] = ()
    """`.tsv` files or `hub:OWNER/NAME`; `NAME[COLUMN,COLUMN]` where columns are not called as the languages are."""
    dictionary_words: Literal["all", "content"] = "all"
    """content: no names, particles and affixes, as a column `pos` says, else Kiwi (Korean)."""
    dictionary_support: Annotated[int, Field(ge=0)] = 3
    """Phrases that must agree on a pair of words for it to be taken out of them; 0: phrases are left out."""
    license: str = "see each source"
    accept: tuple[Terms, ...] = ()
    """Terms of known data sets that text to train on may come under although they bind the model, or are not known."""
    held_out: Share = 0.15
    """Share of documents, chosen by hash, that training never sees."""
    min_chars: Positive = 40
    max_chars: Positive = 20_000
    """Longer documents are split at sentence ends; nothing is lost."""
    min_script_share: Share = 0.3
    max_bytes: Positive = 200_000_000
    """Bytes of text collected per side, in source order."""
    max_unreadable: Annotated[int, Field(ge=0)] = 0
    """Damaged records (bad bytes, broken JSON) that may be left out per side; one more stops the run and names it."""
    quality: Quality = "plain"
    """Rules for whole documents of the target language beyond length, script and repetition: FineWeb-2's thresholds."""
    select: Select = Select()
    near_duplicates: Share = 0.8
    """Texts of a side that share this much of their runs of letters are one; a held-out one stays. 0: only the same."""
    temperature: Annotated[float, Field(ge=1, le=100)] = 1.0
    """Stages read each source in a share ~ tokens^(1/temperature) of its side; 1: as documents come."""
    max_epochs: Annotated[float, Field(gt=0)] = 4.0
    """With a temperature: no source is read more often than this in a stage while another has text left."""
    privacy: Literal["replace", "drop", "keep"] = "replace"
    """Personal data that rules can find: pseudonyms in its place, its documents dropped, or no search at all."""
    privacy_key: str = ""
    """Environment variable with the secret behind the pseudonyms; none: a public key, so a guess can be checked."""


class Scale(Section):
    """How steps 02 and 04 share out their work. No result depends on it, so no step is ever stale by a change here."""

    engine: Literal["embedded", "local", "ray", "slurm"] = "embedded"
    """embedded: this program's own processes. local, ray, slurm: datatrove's executors (`vocabgraft[scale]`)."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Tasks at a time. 0: as many as there are cores, at most 2, and 1 where there are less than 32 MB to read."""
    partition: str = ""
    """slurm: where jobs are sent …"""
    time: str = "04:00:00"
    """… and the longest that one task may take."""
    memory_gb: Positive = 2
    """ray, slurm: memory of one task."""
