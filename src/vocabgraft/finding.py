"""One line of an examination: what was looked at, how it stands, what was found, what to do. For doctor and audit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """`fail` will break something, `warn` costs or may surprise, `ok` needs nothing. `fix` says what to do and why."""

    name: str
    status: Status
    found: str
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    def line(self) -> str:
        """One line for a terminal; what to do about it below, when there is something to do."""
        text = f"{self.status:5} {self.name}: {self.found}"
        return f"{text}\n      {self.fix}" if self.fix and self.status != "ok" else text
