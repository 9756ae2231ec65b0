"""Which path is worth its CPU-seconds: EEVE's seven stages, the lean path, or adapters without any new piece.

    python benchmarks/training_recipes.py            3 seeds, 900 CPU-seconds a training: hours
    python benchmarks/training_recipes.py --quick    the same for the tiny recipe's random weights: plumbing, 3 minutes

eeve7   the preset of that name: seven stages
lean    the preset of that name, new rows untied: output rows over kept hidden states, then adapters and new rows
qlora   LoRA on an NF4 body, the base's own tokenizer (`law.py`'s control)

All train on medical law with English medical text beside it, from the same rows of the same start. A pilot of one step
a stage tells what a token costs; tokens of all stages are then scaled alike, so that ways use the same CPU-seconds;
what they did use is told. Measured merged, in bf16: bits per byte on held-out text of the law it trained on, on Korean
text of other kinds, and on English. Full runs are kept in runs/recipes and go on where they were; they need
../shared/data, and say so and stop without it. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from law import DATA, control

from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.corpus.mix import windows
from vocabgraft.deployment.merge import export_folder
from vocabgraft.durable import digest, write_json
from vocabgraft.evaluation.bits import Bits, bits_per_byte
from vocabgraft.evaluation.statistics import mean_of_runs, paired_change
from vocabgraft.machine import detect
from vocabgraft.models.load import load_model
from vocabgraft.recipe import load_recipe
from vocabgraft.recipe_sections import Stage
from vocabgraft.run import Run
from vocabgraft.steps.context import Context, Silent
from vocabgraft.steps.data import probe_windows
from vocabgraft.steps.embedding import adapter_spec
from vocabgraft.steps.tokenizer import bos_of, load_expansion
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.training.graft import tensor_ids

LAST = "37-stage7"
WAYS = {"eeve7": ["preset=eeve7"], "lean": ["preset=lean", "init.row_untied=true"]}
OTHERS = {"msdocs": "ko/msdocs.jsonl.zst", "reviews": "ko/nsmc_reviews.txt.zst"}
PILOT = 1024  # tokens a stage
OF_A_DOCUMENT = 3  # windows


@dataclass(frozen=True)
class Plan:
    """What is trained and measured, and how much. seconds: CPU-seconds of a training."""

    recipe: str
    budget: str
    seconds: float
    settings: list[str]
    measured_bytes: int
    trial_steps: int
    others: bool = True  # measured on Korean text of other kinds too


LAW = [
    f'data.target=["{DATA}/ko/medical_law.jsonl.zst"]',
    f'data.replay=["{DATA}/en/medical.jsonl.zst"]',
    "evaluate.probe_bytes=4096",  # between stages only; what is reported is measured on more, at the end
]
QUICK = Plan("tiny-cpu", "smoke", 2.0, ["init.max_rise=50.0"], 1024, 2, others=False)


def run(folder: Path, plan: Plan, settings: list[str]) -> Run:
    """The recipe up to its last stage, in a process of its own; what is done is not done again."""
    command = [sys.executable, "-m", "vocabgraft", "run", plan.recipe, "--folder", str(folder), "--budget", plan.budget]
    command += ["--until", LAST, *(word for s in [*plan.settings, *settings] for word in ("--set", s))]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return Run.open(folder)


def spent(run: Run, metric: str = "cpu_seconds") -> list[float]:
    """CPU-seconds, or another figure, of each stage."""
    keys = [f"3{n}-stage{n}" for n in range(1, len(run.recipe.stage) + 1)]
    return [m.metrics[metric] for k in keys if (m := run.manifest(k))]


def least(stage: Stage, step: int) -> int:
    """Tokens of the shortest training there is; stages over kept hidden states hold one step out."""
    return 2 * step if stage.cached else step


def scaled(stages: Sequence[Stage], pilot: Run, cpu_seconds: float) -> list[str]:
    """Settings that give each stage the same multiple of its tokens, so that all cost so much together."""
    each = [seconds / tokens for seconds, tokens in zip(spent(pilot), spent(pilot, "tokens"), strict=True)]
    factor = cpu_seconds / sum(cost * stage.tokens for cost, stage in zip(each, stages, strict=True))
    return [f"stage.{n}.tokens={max(least(s, PILOT), round(factor * s.tokens))}" for n, s in enumerate(stages)]


def begun(folder: Path, name: str, before: str) -> Path:
    """A folder of a run, at first with steps 00 to 21 of another: what all share is made once."""
    if not (folder / name).exists() and (folder / before).exists():
        shutil.rmtree(folder / "copy", ignore_errors=True)
        shutil.copytree(folder / before, folder / "copy", ignore=shutil.ignore_patterns("2[2-9]-*", "[3-6]?-*"))
        (folder / "copy").rename(folder / name)
    return folder / name


def ours(way: str, folder: Path, plan: Plan, seed: int) -> tuple[Run, float]:
    """A pilot, then the run; what its stages used."""
    settings, shared = [*WAYS[way], f"training.seed={seed}"], next(iter(WAYS))
    stages = load_recipe(plan.recipe, [*plan.settings, *settings], plan.budget).stage
    small = [f"stage.{n}.tokens={least(stage, PILOT)}" for n, stage in enumerate(stages)]
    pilot = run(begun(folder, f"{way}-pilot", f"{shared}-pilot"), plan, [*WAYS[way], *small])
    sizes = scaled(stages, pilot, plan.seconds)
    done = run(begun(folder, f"{way}-{seed}", f"{way}-pilot"), plan, [*settings, *sizes])
    return done, sum(spent(done))


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


def domains(context: Context, plan: Plan) -> dict[str, list[str]]:
    """Windows of text that nothing trained on, by domain."""
    limit = plan.measured_bytes
    found = {"law": probe_windows(context, "target", limit), "english": probe_windows(context, "replay", limit)}
    size = context.recipe.evaluate.window_bytes
    for name, file in OTHERS.items() if plan.others else ():
        documents = read_source(str(DATA / file), language="ko", license="", tally=Tally())
        beginnings = ("".join(windows([d.text], size, OF_A_DOCUMENT * size)) for d in documents)
        found[name] = list(windows(beginnings, size, limit))
    return found


def measured(kept: Path, texts: dict[str, list[str]], made: Callable[[], Path]) -> dict[str, Bits]:
    """Bits per byte by domain of a folder; kept in a file, and not measured on the same windows again."""
    key = digest(texts)
    if kept.exists() and (found := json.loads(kept.read_text("utf-8")))["windows"] == key:
        return {name: Bits(tuple(b["bits"]), tuple(b["bytes"]), b["tokens"]) for name, b in found["domains"].items()}
    folder = made()
    model, tokenizer, (bos, _) = load_model(folder), load_tokenizer(folder), bos_of(folder)
    bits = {name: bits_per_byte(model, tokenizer, each, bos=bos) for name, each in texts.items()}
    write_json(kept, {"windows": key, "domains": {name: asdict(b) for name, b in bits.items()}})
    return bits


def plain(place: Path, context: Context, plan: Plan, seconds: float) -> tuple[Path, float]:
    """The control's merged folder and the CPU-seconds it used; made once."""
    told = place / "cost.json"
    if not told.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        write_json(told, control(context, seconds, place, plan.trial_steps)[1])
    return place / "model", float(json.loads(told.read_text("utf-8"))["cpu_seconds"])


def one_seed(folder: Path, plan: Plan, seed: int) -> dict[str, Any]:
    """Change of bits per byte against the base by way and domain, and what each way used."""
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        runs = {way: ours(way, folder, plan, seed) for way in WAYS}
        context = context_of(runs["eeve7"][0], scratch)
        texts, costs = domains(context, plan), {way: used for way, (_, used) in runs.items()}
        before = measured(folder / "base.json", texts, context.base_folder)
        after = {
            way: measured(folder / f"{way}-{seed}.json", texts, partial(merged, done, scratch / way))
            for way, (done, _) in runs.items()
        }
        place, costs["qlora"] = plain(folder / f"qlora-{seed}", context, plan, plan.seconds)
        after["qlora"] = measured(folder / f"qlora-{seed}.json", texts, lambda: place)
    found: dict[str, Any] = {}
    for way, domain in after.items():
        changes = {n: paired_change(before[n].bits, bits.bits, before[n].bytes) for n, bits in domain.items()}
        found[way] = {
            "cpu_seconds": round(costs[way], 1),
            "bits_per_byte": {n: round(bits.per_byte, 5) for n, bits in domain.items()},
            "change": {n: [round(x, 5) for x in (c.relative, c.low, c.high)] for n, c in changes.items()},
        }
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
    parser.add_argument("--quick", action="store_true", help="the tiny recipe, random weights, 1 seed")
    parser.add_argument("--cpu-seconds", type=float, default=900.0, help="what each training may use")
    options = parser.parse_args()
    if not options.quick and not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is not here; this benchmark needs the development data"}))
        return
    full = Plan("korean-gemma-270m", "short", options.cpu_seconds, LAW, 16_384, 4)
    plan, seeds = (QUICK, 1) if options.quick else (full, 3)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.quick else Path("runs/recipes")
        folder.mkdir(parents=True, exist_ok=True)
        found = [one_seed(folder, plan, seed) for seed in range(1, seeds + 1)]
        print(json.dumps(table(found) | {"cpu_seconds": plan.seconds, "budget": plan.budget}))


if __name__ == "__main__":
    main()
