"""Ways to start new rows, side by side on a real model: every method, at once and after a probe, over seeds.

    python benchmarks/embedding_bakeoff.py             medical law, 6,143 pieces, 3 seeds of 50 steps: over an hour
    python benchmarks/embedding_bakeoff.py --smollm2   the same on SmolLM2-135M, pieces appended
    python benchmarks/embedding_bakeoff.py --quick     our samples, 512 pieces, 1 seed of 1 step: at most 3 minutes

The probe trains new rows on both routes with the body frozen, 256 tokens a step. Bits per byte are of held-out target
text. `trained_rows_bpb`: rows of the best start alone, two epochs; `distilled_closes`: share of the way from the best
blend to there that distilled rows stand at without a step on the body. A full run is kept in runs/ and goes on where
it was; it needs ../shared/data, and says so and stops without. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bases import smollm2_model

DATA = Path("../shared/data")
RECIPE = "korean-gemma-270m"
LAW = [
    "--budget", "short",
    "--set", f'data.target=["{DATA}/ko/medical_law.jsonl.zst"]',
    "--set", f'data.replay=["{DATA}/en/medical.jsonl.zst"]',
    "--set", "tokenizer.pieces=6143",
    "--set", "tokenizer.min_count=5",
    "--set", "training.tokens_per_step=256",
]  # fmt: skip
TRAINED = 131_072  # tokens an epoch of the rows that show what a start could win
SMOLLM2 = [
    "base.kind=folder", "base.name=smollm2-135m", "base.source={}", "base.license=Apache-2.0", "tokenizer.place=append",
]  # fmt: skip


def vocabgraft(*words: str) -> str:
    """The command line as a process of its own; what it prints for machines."""
    command = [sys.executable, "-m", "vocabgraft", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """The table as the issue names it."""
    at_once = {row["name"]: row["bpb_step0"]["mean"] for row in found["rows"]}
    blends = [bits for name, bits in at_once.items() if not name.startswith("distilled")]
    taught = [bits for name, bits in at_once.items() if name.startswith("distilled")]
    (mean,) = [bits for name, bits in at_once.items() if name.startswith("mean@")]
    best, trained = min(blends), found["trained_rows_bpb"]
    return {
        "methods": found["rows"],
        "default": found["default"],
        "best": found["best"],
        "base_bpb": found["base_bpb"],
        "mean_of_all_bpb": mean,
        "trained_rows_bpb": trained,
        "distilled_closes": round((best - min(taught)) / (best - trained), 4) if trained and taught else None,
        "kl_bound": found["kl_bound"],
        "probe": {key: found[key] for key in ("steps", "tokens", "seeds")},
    }


def main() -> None:
    """Make a run up to the expanded tokenizer, bake off, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke budget, 1 seed, 1 step")
    parser.add_argument("--smollm2", action="store_true", help="SmolLM2-135M in place of Gemma 3 270M")
    arguments = parser.parse_args()
    if not arguments.quick and not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is not here; this benchmark needs the development data"}))
        return
    settings = ["--budget", "smoke", "--set", "init.tokens=1024"] if arguments.quick else LAW
    name = "gemma"
    if arguments.smollm2:
        base = smollm2_model()
        name, settings = "smollm2", [*settings, *(word for line in SMOLLM2 for word in ("--set", line.format(base)))]
    probe = ["--seeds", "1", "--steps", "1"] if arguments.quick else ["--seeds", "3", "--steps", "50"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(Path(scratch) / "run" if arguments.quick else Path("runs") / f"bakeoff-{name}")
        vocabgraft("run", RECIPE, *settings, "--folder", folder, "--until", "21-resize")
        trained = str(TRAINED // 64 if arguments.quick else TRAINED)
        found = vocabgraft("bakeoff", folder, *probe, "--trained", trained, "--json")
        print(json.dumps(figures(json.loads(found))))


if __name__ == "__main__":
    main()
