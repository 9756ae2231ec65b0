"""The main job, measured: the 22 steps of korean-gemma-270m on this machine.

    python benchmarks/demo.py            the demo budget, in runs/korean-gemma-270m (what `make demo` writes)
    python benchmarks/demo.py --quick    the smoke budget, in a temporary folder, at most 3 minutes

Last line: one JSON object. A finished run folder is read, not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from vocabgraft.pipeline import STEPS
from vocabgraft.run import Run

NAME = "korean-gemma-270m"


def figures(folder: Path) -> dict[str, Any]:
    """Read the ledger of a finished run."""
    run = Run.open(folder)
    found = {s.key: run.manifest(s.key) for s in STEPS}
    manifests = {k: m for k, m in found.items() if m is not None}
    metrics = {k: m.metrics for k, m in manifests.items()}
    start = metrics["22-initialise"]["bits_per_byte"]
    end = metrics["41-instruct"]["bits_per_byte"]
    named = {"korean": "target", "english": "replay"}
    return {
        "steps": len(manifests),
        "seconds": round(sum(m.seconds for m in manifests.values()), 1),
        "peak_gb": max(m.peak_memory_gb for m in manifests.values()),
        "tokens_per_eojeol": metrics["13-expand-tokenizer"]["tokens_per_word"],
        "bits_per_byte": {
            name: {"base": start[side]["base"], "initialised": start[side]["initialised"], "final": end[side]}
            for name, side in named.items()
        },
        "by_step": {k: m["bits_per_byte"] for k, m in metrics.items() if k[0] == "3" or k == "41-instruct"},
        "choices": {k: metrics[k]["choices"] for k in ("51-korean", "52-english")},
        "quantised": metrics["61-quantize"]["bits_per_byte"],
        "greedy": {k: metrics["61-quantize"]["greedy"][k] for k in ("prompts", "equal")},
        "english_ids_changed": metrics["13-expand-tokenizer"]["english_ids_changed"],
    }


def main() -> None:
    """Run (or continue) the job in a process of its own and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke budget in a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run" if arguments.quick else Path("runs") / NAME
        extra = ["--budget", "smoke"] if arguments.quick else []
        subprocess.run(
            [sys.executable, "-m", "vocabgraft", "run", NAME, *extra, "--folder", str(folder)],
            check=True,
            stdout=sys.stderr,
        )
        print(json.dumps(figures(folder), ensure_ascii=False))


if __name__ == "__main__":
    main()
