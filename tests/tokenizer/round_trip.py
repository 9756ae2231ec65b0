"""Load, save, load, save, load a tokenizer with whatever transformers is installed; run by it as a program, too.

python round_trip.py FOLDERS.json RESULT.json      (folder -> texts)  ->  (folder -> what was found)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def round_trip(folder: str, texts: list[str]) -> dict[str, Any]:
    """Ids of the texts after each load, where every token stands after the last, and what was saved."""
    from transformers import AutoTokenizer

    with TemporaryDirectory() as work:
        loaded = [AutoTokenizer.from_pretrained(folder)]
        for step in ("first", "second"):
            loaded[-1].save_pretrained(f"{work}/{step}")
            loaded.append(AutoTokenizer.from_pretrained(f"{work}/{step}"))
        saved = [
            {p.name: p.read_text("utf-8") for p in Path(work, step).glob("*.json")} for step in ("first", "second")
        ]
        names = sorted(p.name for p in Path(work, "second").iterdir())
    return {
        "ids": [[t.encode(x, add_special_tokens=False) for x in texts] for t in loaded],
        "framed": [t.encode("a") for t in loaded],
        "vocab": loaded[-1].get_vocab(),
        "length": [len(t) for t in loaded],
        "tokenizer_json_changed": saved[0]["tokenizer.json"] != saved[1]["tokenizer.json"],
        "names": names,
    }


def slow_ids(folder: str, texts: list[str]) -> list[list[int]]:
    """Ids by the slow tokenizer of transformers 4, which reads tokenizer.model or vocab.json and merges.txt."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=False)
    assert not tokenizer.is_fast
    return [tokenizer.encode(x, add_special_tokens=False) for x in texts]


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    found = {folder: round_trip(folder, texts) for folder, texts in asked["fast"].items()}
    slow = {folder: slow_ids(folder, texts) for folder, texts in asked["slow"].items()}
    Path(sys.argv[2]).write_text(json.dumps({"fast": found, "slow": slow}), "utf-8")
