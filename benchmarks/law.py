"""A real corpus: medical law into the 270M base, beside the same data with the old tokenizer for the same CPU-seconds.

    python benchmarks/law.py             budget short: under an hour for the run, as long again for the control
    python benchmarks/law.py --quick     512 tokens a training, nothing after; an eighth of the control; <= 3 minutes
    python benchmarks/law.py --run runs/law    only the control, beside a run that is there

The control trains LoRA of the same rank on the same body (NF4) and mixture, with the base's own tokenizer and no
new rows, until it has used the CPU-seconds of the run's seven stages; both are measured merged, in bf16, on the
same windows of held-out text. Needs ../shared/data; says so and stops without it. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vocabgraft.corpus.mix import Mixture, pack_documents
from vocabgraft.deployment.merge import export_folder
from vocabgraft.evaluation.bits import Bits, bits_per_byte
from vocabgraft.evaluation.statistics import paired_change
from vocabgraft.machine import detect
from vocabgraft.models.load import load_model
from vocabgraft.pipeline import STEPS
from vocabgraft.run import Run
from vocabgraft.steps.context import Context, Silent
from vocabgraft.steps.data import probe_windows
from vocabgraft.steps.packing import rows_per_step, stretches
from vocabgraft.steps.tokenizer import bos_of
from vocabgraft.tokenizer.measure import changed_ids, encode, load_tokenizer
from vocabgraft.training.graft import open_graft, save_graft, tensor_ids
from vocabgraft.training.loop import Schedule, train
from vocabgraft.training.lora import AdapterSpec

DATA = Path("../shared/data")
RECIPE = "korean-gemma-270m"
# One step of 512 tokens a training: the smoke budget's 1,024 leave no time for the control.
QUICK = [
    "--budget", "smoke", "--until", "41-instruct", "--set", "training.tokens_per_step=512",
    *(word for n in range(7) for word in ("--set", f"stage.{n}.tokens=512")), "--set", "instruct.tokens=512",
]  # fmt: skip
_TRIAL_STEPS = 4  # they tell what a step costs; the first costs more (a quick run has time for two)


def run_job(folder: Path, *extra: str) -> None:
    """The recipe on real files, in a process of its own."""
    subprocess.run(
        [sys.executable, "-m", "vocabgraft", "run", RECIPE, "--folder", str(folder), *extra,
         "--set", f'data.target=["{DATA}/ko/medical_law.jsonl.zst"]',
         "--set", f'data.replay=["{DATA}/en/medical.jsonl.zst"]'],
        check=True,
        stdout=sys.stderr,
    )  # fmt: skip


def control(context: Context, cpu_seconds: float, scratch: Path, trial_steps: int) -> tuple[Path, dict[str, Any]]:
    """Base tokenizer + LoRA on the same mixture for the same CPU-seconds; returns the merged folder."""
    recipe, base = context.recipe, context.base_folder()
    tokenizer, (bos, _) = load_tokenizer(base), bos_of(base)
    packed = {}
    for side, count in (("target", 1500), ("replay", 1500)):
        texts = [s.text for s in stretches(context, side, recipe.training.seed)[:count]]
        packed[side] = pack_documents(encode(tokenizer, texts), recipe.training.window, bos)
    stage = recipe.stage[5]
    mixture = Mixture(packed["target"], packed["replay"], stage.replay_share, 1, rows_per_step(recipe))
    lora = recipe.lora
    spec = AdapterSpec(lora.rank, lora.alpha, lora.modules, lora.body, lora.kind)

    now = time.process_time

    def fit(steps: int) -> tuple[Any, list[float]]:
        """A trained graft, and the CPU-seconds used at the end of each step."""
        graft = open_graft(base, tensor_ids([]), None, spec=spec, seed=recipe.training.seed)
        schedule, clock, began = Schedule(("lora",), steps, lr_lora=stage.lr.lora), [], time.process_time()
        train(graft, mixture.batch, schedule, micro_batch=2, on_step=lambda step, loss: clock.append(now() - began))
        return graft, clock

    first, *_, last = trial = fit(trial_steps)[1]
    steps = 1 + max(1, round((cpu_seconds - first) / ((last - first) / (len(trial) - 1))))
    graft, clock = fit(steps)
    state = scratch / "state"
    state.mkdir()
    save_graft(graft, state, None, ["lora", "input.new"])
    export_folder(base, base, state, tensor_ids([]), scratch / "model", scale=spec.scale)
    tokens = steps * rows_per_step(recipe) * recipe.training.window
    return scratch / "model", {"steps": steps, "tokens": tokens, "cpu_seconds": round(clock[-1], 1)}


def measure(context: Context, folder: Path, limit: int) -> dict[str, Bits]:
    """Bits per byte of a folder on the held-out windows of both sides."""
    model, tokenizer, (bos, _) = load_model(folder), load_tokenizer(folder), bos_of(folder)
    return {
        side: bits_per_byte(model, tokenizer, probe_windows(context, side, limit), bos=bos)
        for side in ("target", "replay")
    }


def compare(folder: Path, scratch: Path, share: float, trial_steps: int) -> dict[str, Any]:
    """Base, ours and the control (which gets that share of our CPU-seconds) on the same windows."""
    run = Run.open(folder)
    context = Context("benchmark", (), run.recipe, run, scratch, detect(folder), Silent())
    manifests = {s.key: run.manifest(s.key) for s in STEPS}
    stages = [m for k, m in manifests.items() if m and k[0] == "3"]
    spent = sum(m.metrics["cpu_seconds"] for m in stages)
    controlled, cost = control(context, share * spent, scratch, trial_steps)
    limit = run.recipe.evaluate.final_bytes
    final, base = run.path("41-instruct", "model"), context.base_folder()
    found = {n: measure(context, f, limit) for n, f in (("base", base), ("ours", final), ("control", controlled))}
    rows: dict[str, Any] = {}
    for side in ("target", "replay"):
        before = found["base"][side]
        rows[side] = {"bytes": sum(before.bytes), "base": round(before.per_byte, 4)}
        for name in ("ours", "control"):
            change = paired_change(before.bits, found[name][side].bits, before.bytes)
            rows[side][name] = round(found[name][side].per_byte, 4)
            rows[side][f"{name}_change"] = [round(x, 4) for x in (change.relative, change.low, change.high)]
        versus = paired_change(found["control"][side].bits, found["ours"][side].bits, before.bytes)
        rows[side]["ours_against_control"] = [round(x, 4) for x in (versus.relative, versus.low, versus.high)]
    wiki = (DATA / "en/wikitext2_test.txt").read_text("utf-8").split("\n")
    new = run.path("13-expand-tokenizer", "tokenizer")
    tokens = manifests["13-expand-tokenizer"].metrics["tokens"]
    return {
        "seconds": round(sum(m.seconds for m in manifests.values() if m), 1),
        "peak_gb": max(m.peak_memory_gb for m in manifests.values() if m),
        "fewer_tokens": round(1 - tokens["after"] / tokens["before"], 4),
        "bits_per_byte": rows,
        "by_step": {k: m.metrics.get("bits_per_byte") for k, m in manifests.items() if m and k[0] in "234"},
        "wikitext_ids_changed": changed_ids(load_tokenizer(base), load_tokenizer(new), wiki),
        "stages_cpu_seconds": round(spent, 1),
        "stages_tokens": sum(m.metrics["tokens"] for m in stages),
        "control": cost,
    }


def main() -> None:
    """Run the job, then the control, then print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke budget")
    parser.add_argument("--run", type=Path, help="a finished run of this job")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is not here; this benchmark needs the development data"}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        folder = scratch / "run" if arguments.quick else Path("runs/law")
        if arguments.run is None:
            run_job(folder, *(QUICK if arguments.quick else ["--budget", "short"]))
        else:
            folder = arguments.run
        share = 1 / 8 if arguments.quick else 1.0
        print(json.dumps(compare(folder, scratch, share, 2 if arguments.quick else _TRIAL_STEPS), ensure_ascii=False))


if __name__ == "__main__":
    main()
