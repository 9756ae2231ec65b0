"""Commands about what ships: build the merged model from a base and an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vocabgraft.cli_answer import Json, answer


def merge(
    base: Annotated[Path, typer.Argument(help="Folder of the base model, in the revision the adapter was made for.")],
    adapter: Annotated[Path, typer.Argument(help="An adapter folder: RUN/61-quantize/adapter.")],
    out: Annotated[Path, typer.Argument(help="New folder for the merged model.")],
    as_json: Json = False,
) -> None:
    """Build the merged model from its base and a small adapter folder."""
    from vocabgraft.deployment.adapter import merge_adapter

    counts = merge_adapter(base, adapter, out)
    told = f"{out}: {counts['changed']} tensors changed, {counts['kept']} as in the base"
    answer(as_json, {"model": str(out), **counts}, told)
