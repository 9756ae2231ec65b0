"""Ways to start new rows, side by side on the 270M: every method, at once and after a probe, over seeds.

    python benchmarks/embedding_bakeoff.py             medical law, 6,143 pieces, 3 seeds of 50 steps: over an hour
    python benchmarks/embedding_bakeoff.py --quick     our samples, 512 pieces, 1 seed of 1 step: at most 3 minutes

The probe trains new rows on both routes with the body frozen, 256 tokens a step. Bits per byte are of held-out target
text. Full runs need ../shared/data; without it they say so and stop. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

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


def vocabgraft(*words: str) -> str:
    """The command line as a process of its own; what it prints for machines."""
    command = [sys.executable, "-m", "vocabgraft", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """The table as the issue names it."""
    by_name = {row["name"]: row for row in found["rows"]}
    (mean,) = [row for name, row in by_name.items() if name.startswith("mean@")]
    return {
        "methods": found["rows"],
        "default": found["default"],
        "best": found["best"],
        "base_bpb": found["base_bpb"],
        "mean_of_all_bpb": mean["bpb_step0"]["mean"],
        "kl_bound": found["kl_bound"],
        "probe": {key: found[key] for key in ("steps", "tokens", "seeds")},
    }


def main() -> None:
    """Make a run up to the expanded tokenizer, bake off, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke budget, 1 seed, 1 step")
    arguments = parser.parse_args()
    if not arguments.quick and not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is not here; this benchmark needs the development data"}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(Path(scratch) / "run")
        settings = ["--budget", "smoke"] if arguments.quick else LAW
        vocabgraft("run", RECIPE, *settings, "--folder", folder, "--until", "21-resize")
        probe = ["--seeds", "1", "--steps", "1"] if arguments.quick else ["--seeds", "3", "--steps", "50"]
        print(json.dumps(figures(json.loads(vocabgraft("bakeoff", folder, *probe, "--json")))))


if __name__ == "__main__":
    main()
