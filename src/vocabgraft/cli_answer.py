"""How commands answer: text for people, one JSON value with `--json`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def emit(value: Any) -> None:
    """Print one JSON value."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def show_text(text: str) -> None:
    """Print plain text."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def answer(as_json: bool, value: Any, text: str) -> None:
    """Print the JSON value or the text."""
    emit(value) if as_json else show_text(text)
