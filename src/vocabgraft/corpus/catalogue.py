"""Published data sets that recipes call by name: KIND:NAME[/PART][@COMMIT], or KIND:NAME=PATH for rows at hand."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Protocol, TypeVar

from pydantic import BaseModel, Field

from vocabgraft.errors import DataError

_NAME = re.compile(r"(\w+):([\w-]+)(?:/([\w.-]+))?(?:@([\w./-]+)|=(.+))?")

Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Entry(Protocol):
    """What is known of a data set; `configs` are its parts."""

    @property
    def configs(self) -> tuple[str, ...]:
        """Names of the parts."""


E = TypeVar("E", bound=Entry)
M = TypeVar("M", bound=BaseModel)


def read_catalogue(model: type[M], package: str, file: str) -> dict[str, M]:
    """The entries of a TOML file that ships with a package, by name."""
    text = files(package).joinpath(file).read_text("utf-8")
    return {name: model(name=name, **fields) for name, fields in tomllib.loads(text).items()}


def look_up(
    source: str, known: Mapping[str, E], *, kind: str, form: str, more: str = ""
) -> tuple[E, str | None, str | None, str | None]:
    """The entry that a source string names, and its part, commit and path where they are said.

    A DataError tells an unknown name, part or form: `form` is the string's own, `more` where all names are told.
    """
    match = _NAME.fullmatch(source)
    if match is None or match[1] != kind:
        raise DataError(f"{source!r} is not of the form {form}")
    _, name, part, commit, path = match.groups()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        raise DataError(f"{kind} {name!r} is unknown; {hint}{more}")
    found = known[name]
    if part is not None and part not in found.configs:
        raise DataError(f"{kind} {name!r} has no part {part!r}; its parts: {', '.join(found.configs) or 'none'}")
    return found, part, commit, path
