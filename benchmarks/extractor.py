"""Reading the chosen option out of written answers: ours beside lm-eval's `kormedmcqa` 2.0 and 3.0.

    python benchmarks/extractor.py             all answers and refusals of tests/evaluation/answers.jsonl
    python benchmarks/extractor.py --quick     the same: it takes a second

Answers and refusals were written for this by three authors who had not seen the extractor. Sets "a" and "b" were
looked at while it was written; "c" was read once when it was done, before its misses were mended: 158 of 160, 1 of 60
refusals answered. `ours`, `lm_eval_v3`: share of answers read right; `refusals_answered`: texts that choose nothing and
yet were given an option, by ours. lm-eval cuts answers at its stops, which is left out here: only the reading is
compared. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vocabgraft.evaluation.extract import extract
from vocabgraft.evaluation.lm_eval import extract_v2, extract_v3
from vocabgraft.evaluation.statistics import wilson

ANSWERS = Path(__file__).parent.parent / "tests/evaluation/answers.jsonl"
Row = dict[str, Any]


def share(rows: list[Row], read: Callable[[Row], int | None]) -> dict[str, Any]:
    """Right readings of texts that choose, with the 95 % interval; given options of texts that choose nothing."""
    choosing = [row for row in rows if row["answer"] is not None]
    refusing = [row for row in rows if row["answer"] is None]
    right = wilson(sum(read(row) == row["answer"] for row in choosing), len(choosing))
    return {
        "right": round(right.accuracy, 4),
        "interval": [round(right.low, 4), round(right.high, 4)],
        "of": right.n,
        "refusals_answered": sum(read(row) is not None for row in refusing),
        "refusals": len(refusing),
    }


def main() -> None:
    """Read every text in each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="no difference")
    parser.parse_args()
    rows = [json.loads(line) for line in ANSWERS.read_text("utf-8").splitlines()]
    ways: dict[str, Callable[[Row], int | None]] = {
        "ours": lambda row: extract(row["text"], row["options"]),
        "lm_eval_v3": lambda row: extract_v3(row["text"]),
        "lm_eval_v2": lambda row: extract_v2(row["text"]),
    }
    sets = sorted({row["set"] for row in rows})
    found = {way: share(rows, read) for way, read in ways.items()}
    print(Counter((row["set"], row["kind"]) for row in rows if ways["ours"](row) != row["answer"]), file=sys.stderr)
    by_set = {s: {way: share([r for r in rows if r["set"] == s], read) for way, read in ways.items()} for s in sets}
    print(
        json.dumps(
            {
                "ours": found["ours"]["right"],
                "lm_eval_v3": found["lm_eval_v3"]["right"],
                "refusals_answered": found["ours"]["refusals_answered"],
                "ways": found,
                "sets": by_set,
            }
        )
    )


if __name__ == "__main__":
    main()
