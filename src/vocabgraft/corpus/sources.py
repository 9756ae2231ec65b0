"""Known data sets by name: where they are, how a row becomes a text, under which terms.

    source:fineweb-2-ko@COMMIT             the hub's data set at that commit
    source:fineweb-2-ko                    the same as it is now
    source:kormedmcqa-train/nurse@COMMIT   one part of it, where it has several
    source:asan-healthinfo=my/copy.jsonl   rows at hand, read as that source: its columns, its licence

What is known of each is in sources.toml, in the words of evaluation/benchmarks.toml.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from vocabgraft.corpus.catalogue import Commit, look_up, read_catalogue
from vocabgraft.errors import DataError

PREFIX = "source:"
_COLUMN = re.compile(r"\{([\w.]+)\}")


class Source(BaseModel):
    """One data set; `text` names columns of its rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    language: str
    dataset: str
    revision: Commit | None = None
    """What is read where a source string names no commit; None for the newest."""
    configs: tuple[str, ...] = ()
    split: str = "train"
    text: str
    """A column, or lines with {columns}; a dot goes into a column."""
    needs: tuple[str, ...] = ()
    """Columns without which a row has no text."""
    absent: tuple[str, ...] = ()
    """What stands in a column for nothing."""
    license: str
    license_url: str
    uses: tuple[Literal["pretrain", "tune", "evaluate"], ...]
    non_commercial: bool = False
    share_alike: bool = False
    unknown_terms: bool = False
    access: Literal["open", "gated"] = "open"
    access_note: str = ""
    note: str = ""
    unseen: str = ""
    """What of this entry we could not see, only infer."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a row must have."""
        return tuple(dict.fromkeys(name.partition(".")[0] for name in _COLUMN.findall(self._template)))

    @property
    def terms(self) -> str:
        """What a person must know before training on it, in a few words."""
        told = {
            "evaluation only": "pretrain" not in self.uses and "tune" not in self.uses,
            "non-commercial": self.non_commercial,
            "share alike": self.share_alike,
            "unknown terms": self.unknown_terms,
        }
        return ", ".join(word for word, holds in told.items() if holds)

    def document(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with its text in a field 'text'; one without the source's columns is left as it is."""
        named = {str(key).casefold(): value for key, value in row.items()}
        if any(column.casefold() not in named for column in self.columns):
            return dict(row)
        if any(not self._value(named, column) for column in self.needs):
            return {**row, "text": ""}
        lines = []
        for line in self._template.split("\n"):
            values = {name: self._value(named, name) for name in _COLUMN.findall(line)}
            if all(values.values()):
                lines.append(_COLUMN.sub(lambda found, v=values: v[found[1]], line))  # type: ignore[misc]
        return {**row, "text": "\n".join(lines)}

    @property
    def _template(self) -> str:
        return self.text if "{" in self.text else f"{{{self.text}}}"

    def _value(self, row: Mapping[str, Any], column: str) -> str:
        value: Any = row
        for part in column.casefold().split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, list | tuple):
            value = "\n".join(str(v) for v in value if v)
        text = str(value).strip() if isinstance(value, str | int | float) else ""
        return "" if text in self.absent else text


@cache
def catalogue() -> dict[str, Source]:
    """Every source by name."""
    return read_catalogue(Source, "vocabgraft.corpus", "sources.toml")


class Named(BaseModel):
    """A source string that names a known data set, taken apart."""

    model_config = ConfigDict(frozen=True)

    source: Source
    config: str | None = None
    revision: str | None = None
    path: str | None = None


def named(source: str) -> Named:
    """Take apart a source string; DataError for a name, part or form that is unknown."""
    form, more = "source:NAME[/PART][@COMMIT] or source:NAME=PATH", " (all of them: vocabgraft sources)"
    found, config, revision, path = look_up(source, catalogue(), kind="source", form=form, more=more)
    if config is None and path is None and len(found.configs) > 1:
        raise DataError(f"source {found.name!r} has several parts; name one: source:{found.name}/{found.configs[0]}, …")
    config, revision = config or next(iter(found.configs), None), revision or found.revision
    return Named(source=found, config=config, revision=revision, path=path)
