"""Which path is worth its CPU-seconds: EEVE's seven stages, the lean path, or adapters without any new piece.

    python benchmarks/training_recipes.py            3 seeds, 900 CPU-seconds a training: hours; not run to its end yet
    python benchmarks/training_recipes.py --quick    1 seed, 45 CPU-seconds, 512 pieces; slow without AVX-512

eeve7   the preset of that name: seven stages
lean    the preset of that name, new rows untied: output rows over kept hidden states, then adapters and new rows
qlora   LoRA on an NF4 body, the base's own tokenizer (`law.py`'s control)

All train on medical law with English medical text beside it, from the same rows of the same start. A pilot of one step
a stage tells what a token costs; tokens of all stages are then scaled alike, so that ways use the same CPU-seconds;
what they did use is told. Measured merged, in bf16: bits per byte on held-out text of the law it trained on, on Korean
text of other kinds, and on English. Full runs are kept in runs/recipes and go on where they were. Needs ../shared/data;
says so and stops without it. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from law import DATA, control

from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.corpus.mix import windows
from vocabgraft.deployment.merge import export_folder
from vocabgraft.evaluation.bits import Bits, bits_per_byte
from vocabgraft.evaluation.statistics import mean_of_runs, paired_change
from vocabgraft.machine import detect
from vocabgraft.models.load import load_model
from vocabgraft.recipe import load_recipe
from vocabgraft.run import Run
from vocabgraft.steps.context import Context, Silent
from vocabgraft.steps.data import probe_windows
from vocabgraft.steps.embedding import adapter_spec
from vocabgraft.steps.tokenizer import bos_of, load_expansion
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.training.graft import tensor_ids

RECIPE, LAST = "korean-gemma-270m", "37-stage7"
WAYS = {"eeve7": ["preset=eeve7"], "lean": ["preset=lean", "init.row_untied=true"]}
LAW = [f'data.target=["{DATA}/ko/medical_law.jsonl.zst"]', f'data.replay=["{DATA}/en/medical.jsonl.zst"]']
OTHERS = {"msdocs": "ko/msdocs.jsonl.zst", "reviews": "ko/nsmc_reviews.txt.zst"}
PILOT = 1024  # tokens a stage
PROBES = ["evaluate.probe_bytes=4096"]  # between stages only; what is reported is measured on more, at the end


def run(folder: Path, budget: str, settings: list[str], until: str = LAST) -> Run:
    """The recipe up to a step, in a process of its own; what is done is not done again."""
    command = [sys.executable, "-m", "vocabgraft", "run", RECIPE, "--folder", str(folder), "--budget", budget]
    command += ["--until", until, *(word for s in [*LAW, *PROBES, *settings] for word in ("--set", s))]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return Run.open(folder)


def spent(run: Run) -> dict[str, float]:
    """CPU-seconds of each stage."""
    keys = [f"3{n}-stage{n}" for n in range(1, len(run.recipe.stage) + 1)]
    return {k: m.metrics["cpu_seconds"] for k in keys if (m := run.manifest(k))}


def scaled(way: str, budget: str, settings: list[str], pilot: Run, cpu_seconds: float) -> list[str]:
    """Settings that give each stage the same multiple of its tokens, so that all cost so much together."""
    planned = [s.tokens for s in load_recipe(RECIPE, [*LAW, *settings], budget).stage]
    tried = [pilot.manifest(k).metrics["tokens"] for k in spent(pilot)]
    each = [seconds / tokens for seconds, tokens in zip(spent(pilot).values(), tried, strict=True)]
    factor = cpu_seconds / sum(cost * tokens for cost, tokens in zip(each, planned, strict=True))
    return [f"stage.{n}.tokens={max(PILOT, round(factor * tokens))}" for n, tokens in enumerate(planned)]


def begun(folder: Path, name: str, before: str) -> Path:
    """A folder of a run, at first with steps 00 to 21 of another: what all share is made once."""
    if not (folder / name).exists() and (folder / before).exists():
        shutil.rmtree(folder / "copy", ignore_errors=True)
        shutil.copytree(folder / before, folder / "copy", ignore=shutil.ignore_patterns("2[2-9]-*", "[3-6]?-*"))
        (folder / "copy").rename(folder / name)
    return folder / name


def ours(way: str, folder: Path, budget: str, seed: int, cpu_seconds: float) -> tuple[Run, float]:
    """A pilot, then the run; what its stages used."""
    settings = [*WAYS[way], f"training.seed={seed}"]
    stages = len(load_recipe(RECIPE, [*LAW, *settings], budget).stage)
    small = [f"stage.{n}.tokens={PILOT}" for n in range(stages)]
    pilot = run(begun(folder, f"{way}-pilot", f"{next(iter(WAYS))}-pilot"), budget, [*WAYS[way], *small])
    place = begun(folder, f"{way}-{seed}", f"{way}-pilot")
    done = run(place, budget, [*settings, *scaled(way, budget, settings, pilot, cpu_seconds)])
    return done, sum(spent(done).values())


def context_of(run: Run, scratch: Path) -> Context:
    """A step's view of a finished run."""
    return Context("benchmark", (), run.recipe, run, scratch, detect(scratch), Silent())


def merged(run: Run, out: Path) -> Path:
    """What the stages learnt, as a folder that ships."""
    context = context_of(run, out.parent)
    expansion, tokenizer = load_expansion(context)
    scale = adapter_spec(context).scale
    state = run.path(LAST)
    export_folder(
        context.base_folder(), tokenizer, state, tensor_ids(expansion.ids), out, scale=scale, size=expansion.rows
    )
    return out


def domains(run: Run, scratch: Path, limit: int) -> dict[str, list[str]]:
    """Windows of text that nothing trained on, by domain."""
    context = context_of(run, scratch)
    found = {"law": probe_windows(context, "target", limit), "english": probe_windows(context, "replay", limit)}
    size = run.recipe.evaluate.window_bytes
    for name, file in OTHERS.items():
        documents = read_source(str(DATA / file), language="ko", license="", tally=Tally())
        found[name] = list(windows((d.text for d in documents), size, limit))
    return found


def measure(folder: Path, texts: dict[str, list[str]]) -> dict[str, Bits]:
    """Bits per byte by domain."""
    model, tokenizer, (bos, _) = load_model(folder), load_tokenizer(folder), bos_of(folder)
    return {name: bits_per_byte(model, tokenizer, each, bos=bos) for name, each in texts.items()}


def one_seed(folder: Path, budget: str, seed: int, cpu_seconds: float, limit: int, trial_steps: int) -> dict[str, Any]:
    """Change of bits per byte against the base by way and domain, and what each way used."""
    kept = folder / f"seed-{seed}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return found
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        runs = {way: ours(way, folder, budget, seed, cpu_seconds) for way in WAYS}
        any_run = runs["eeve7"][0]
        texts, base = domains(any_run, scratch, limit), context_of(any_run, scratch).base_folder()
        before = measure(base, texts)
        plain, cost = control(context_of(any_run, scratch), cpu_seconds, scratch, trial_steps)
        folders = {way: (merged(done, scratch / way), used) for way, (done, used) in runs.items()}
        for way, (place, used) in (folders | {"qlora": (plain, cost["cpu_seconds"])}).items():
            after = measure(place, texts)
            found[way] = {"cpu_seconds": round(used, 1), "bits_per_byte": {}, "change": {}}
            for name, bits in after.items():
                change = paired_change(before[name].bits, bits.bits, before[name].bytes)
                found[way]["bits_per_byte"][name] = round(bits.per_byte, 5)
                found[way]["change"][name] = [round(x, 5) for x in (change.relative, change.low, change.high)]
    kept.write_text(json.dumps(found), "utf-8")
    return found


def table(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, with intervals where there is more than one."""
    ways: dict[str, Any] = {}
    for way in seeds[0]:
        each = {name: [s[way]["change"][name][0] for s in seeds] for name in seeds[0][way]["change"]}
        ways[way] = {
            "cpu_seconds": [s[way]["cpu_seconds"] for s in seeds],
            "change": {name: vars(mean_of_runs(values)) for name, values in each.items()},
        }
    return {"ways": ways, "seeds": len(seeds)}


def main() -> None:
    """Every way, every seed; then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 seed, few seconds")
    parser.add_argument("--cpu-seconds", type=float, help="what each training may use")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is not here; this benchmark needs the development data"}))
        return
    budget, seeds, limit, trial = ("smoke", 1, 4096, 2) if options.quick else ("short", 3, 65_536, 4)
    seconds = options.cpu_seconds or (45.0 if options.quick else 900.0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.quick else Path("runs/recipes")
        folder.mkdir(parents=True, exist_ok=True)
        found = [one_seed(folder, budget, seed, seconds, limit, trial) for seed in range(1, seeds + 1)]
        print(json.dumps(table(found) | {"cpu_seconds": seconds, "budget": budget}))


if __name__ == "__main__":
    main()
