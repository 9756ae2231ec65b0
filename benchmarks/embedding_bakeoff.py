"""Ways to start new rows, side by side on a real model: every method, at once and after a probe, over seeds.

    python benchmarks/embedding_bakeoff.py             medical law, 6,143 pieces, 3 seeds of 50 steps: an hour or two
    python benchmarks/embedding_bakeoff.py --smollm2   the same on SmolLM2-135M, pieces appended
    python benchmarks/embedding_bakeoff.py --quick     our samples, 512 pieces, 1 seed of 1 step: a minute (AVX2: 5)

The probe trains new rows on both routes with the body frozen, 256 tokens a step. Bits per byte are of held-out target
text. The default is the recipe's at full size (SmolLM2: of any-language), taught for as long as fits into a minute.
`trained_rows_bpb`: rows of the best start alone, two epochs; `distilled_closes`: share of the way from the best blend
to there that distilled rows stand at without a step on the body; `taught_longer`: the same of rows taught on more
text. A full run is kept in runs/ and goes on where it was; it needs ../shared/data, and says so and stops without.
Last line: one JSON object.
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

from vocabgraft.recipe import load_recipe

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
QUICK = [
    "--budget", "smoke",
    "--set", "init.tokens=512",
    "--set", "init.tokens_per_step=256",
    "--set", "training.tokens_per_step=256",
    "--set", "evaluate.probe_bytes=1024",
]  # fmt: skip
TRAINED = 131_072  # tokens an epoch of the rows that show what a start could win
# Teaching beyond the default's 4,096 tokens. SmolLM2's base spells Korean in four times as many tokens, so its lessons
# are noisier: larger steps of more text (docs/log.md).
LONGER = {
    "gemma": {"init.tokens": 32_768, "init.tokens_per_step": 4096},
    "smollm2": {"init.tokens": 131_072, "init.tokens_per_step": 16_384},
}
SMOLLM2 = [
    "base.kind=folder", "base.name=smollm2-135m", "base.source={}", "base.license=Apache-2.0", "tokenizer.place=append",
]  # fmt: skip


def vocabgraft(*words: str) -> str:
    """The command line as a process of its own; what it prints for machines."""
    command = [sys.executable, "-m", "vocabgraft", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def own_start(recipe: str) -> list[str]:
    """The start of the recipe at its full size, held against all others; as much teaching as fits into a minute."""
    init = load_recipe(recipe, budget="full").init
    fields = {name: getattr(init, name) for name in ("method", "norm", "relative_lr", "row_epsilon")}
    return [word for name, value in fields.items() for word in ("--set", f"init.{name}={value}")]


def taught_longer(folder: str, settings: list[str], teaching: dict[str, int]) -> float:
    """Bits per byte at once of rows that are taught on more text; the run folder keeps what it has."""
    more = [word for key, value in teaching.items() for word in ("--set", f"{key}={value}")]
    vocabgraft("run", RECIPE, *settings, *more, "--folder", folder, "--until", "21-resize")
    found = vocabgraft("bakeoff", folder, "--start", "distilled@0", "--seeds", "1", "--steps", "1", "--json")
    return float(json.loads(found)["rows"][0]["bpb_step0"]["mean"])


def figures(found: dict[str, Any], longer: float | None, teaching: dict[str, int]) -> dict[str, Any]:
    """The table as the issue names it."""
    at_once = {row["name"]: row["bpb_step0"]["mean"] for row in found["rows"]}
    blend = min(bits for name, bits in at_once.items() if not name.startswith("distilled"))
    trained = found["trained_rows_bpb"]

    def closes(taught: float | None) -> float | None:
        return round((blend - taught) / (blend - trained), 4) if trained and taught else None

    return {
        "methods": found["rows"],
        "default": found["default"],
        "best": found["best"],
        "base_bpb": found["base_bpb"],
        "mean_of_all_bpb": at_once["mean@0"],
        "trained_rows_bpb": trained,
        "distilled_closes": closes(at_once["distilled@0"]),
        "taught_longer": {**teaching, "bpb_step0": longer, "closes": closes(longer)} if longer else None,
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
    settings = QUICK if arguments.quick else LAW
    if not arguments.quick:
        settings = [*settings, *own_start("any-language" if arguments.smollm2 else RECIPE)]
    if arguments.smollm2:
        base = smollm2_model()
        settings = [*settings, *(word for line in SMOLLM2 for word in ("--set", line.format(base)))]
    probe = ["--seeds", "1", "--steps", "1"] if arguments.quick else ["--seeds", "3", "--steps", "50"]
    with tempfile.TemporaryDirectory() as scratch:
        name = "smollm2" if arguments.smollm2 else "gemma"
        folder = str(Path(scratch) / "run" if arguments.quick else Path("runs") / f"bakeoff-{name}")
        longer = None if arguments.quick else taught_longer(folder, settings, LONGER[name])
        vocabgraft("run", RECIPE, *settings, "--folder", folder, "--until", "21-resize")
        trained = str(TRAINED // 512 if arguments.quick else TRAINED)
        found = json.loads(vocabgraft("bakeoff", folder, *probe, "--trained", trained, "--json"))
        print(json.dumps(figures(found, longer, LONGER[name])))


if __name__ == "__main__":
    main()
