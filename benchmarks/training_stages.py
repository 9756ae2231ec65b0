"""What a token costs in each stage: the usual ways and ours, side by side.

    python benchmarks/training_stages.py                    Gemma 3 270M, 6,143 new rows, about 25 minutes
    python benchmarks/training_stages.py --quick            one step, stages 1 and 2: at most 3 minutes
    python benchmarks/training_stages.py --device cuda --shape medgemma-4b     random weights of the true shape

naive   everything has a gradient, whole logits; no optimiser, so this is less than full fine-tuning costs
mask    the usual recipe: the whole matrix trains by AdamW, a hook zeroes the gradient of old rows; body frozen
peft    PEFT's trainable tokens (stages 1 to 3), LoRA with the embedding saved (6), LoRA (7)
ours    the stage as the run trains it
cached  a later pass over hidden states that the first one kept (stages 2 and 4)

Each way is a process of its own: CPU-seconds a token (seconds on a GPU), tokens a second, and the memory it adds to a
loaded model. `extra_copies`, in copies of the embedding matrix, is of steps of 32 tokens in stages 1 to 3: what rows in
training cost, without activations. Tokens are random, four in ten of them new: nothing here depends on the text.
`planner_error`: forecast of peak memory over what runs of one step a stage measured, less one. Last line: one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

WAYS = ("naive", "mask", "peft", "ours", "cached")
GROUPS = {
    1: ("input.new",),
    2: ("output.new",),
    3: ("input.new", "output.new"),
    4: ("output.old", "output.new"),
    5: ("input.new", "output.old", "output.new"),
    6: ("input.old", "input.new", "output.old", "output.new", "lora"),
    7: ("lora",),
}
ROWS = 6143
FIRST_SLOT = 6 + 99  # of Gemma 3's <unused0> … <unused6241>, ids 6 to 6247
SWEEP = {"settings": 4, "epochs": 10}


def batch(step: int, rows: int, window: int, vocabulary: int, ids: Any) -> Any:
    """Random tokens, four in ten new; a pure function of the step."""
    from vocabgraft.corpus.mix import NO_TARGET, Rows

    rng = np.random.default_rng([step, rows])
    tokens = rng.integers(7000, vocabulary, (rows, window))
    new = rng.random(tokens.shape) < 0.4
    tokens[new] = rng.choice(ids, int(new.sum()))
    targets = np.concatenate([tokens[:, 1:], np.full((rows, 1), NO_TARGET)], 1)
    return Rows(tokens, np.tile(np.arange(window), (rows, 1)), targets)


class Meter:
    """Time and memory of steps in this process."""

    def __init__(self, device: str) -> None:
        self.device = device

    def reset(self) -> None:
        """Forget the peak so far; what is held now is the baseline."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")
        self.held = self._gb("VmRSS")

    def extra(self) -> float:
        """GB above the baseline at the worst moment since."""
        return self._gb("VmHWM") - self.held

    def _gb(self, field: str) -> float:
        if self.device == "cuda":
            import torch

            found = torch.cuda.memory_allocated() if field == "VmRSS" else torch.cuda.max_memory_allocated()
            return found / 1e9
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1e6

    def now(self) -> tuple[float, float]:
        """CPU-seconds (seconds on a GPU) and seconds."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
            return time.monotonic(), time.monotonic()
        return time.process_time(), time.monotonic()


def child(way: str, stage: int, options: argparse.Namespace) -> dict[str, float]:
    """One way in this process: medians over steps after the first."""
    import torch
    from ways import make_model, run

    from vocabgraft.machine import detect, use_threads

    use_threads(detect(Path()).threads)
    meter = Meter(options.device)
    model = make_model(options.shape, options.device, nf4=way == "ours" and "lora" in GROUPS[stage])
    for weight in model.parameters():
        weight.max()  # what is mapped from a file is in memory before anything is measured …
    first = torch.nn.Linear(2, 2)
    first(torch.ones(2)).sum().backward()
    torch.optim.AdamW(first.parameters()).step()  # … and so is what torch loads on first use
    matrix = model.get_input_embeddings().weight
    ids = np.arange(FIRST_SLOT, FIRST_SLOT + ROWS)
    vocabulary = len(matrix)
    meter.reset()
    clock = [meter.now()]
    run(
        way,
        GROUPS[stage],
        model,
        torch.from_numpy(ids),
        lambda n: batch(n, options.rows, options.window, vocabulary, ids),
        options.steps + 1,
        lambda: clock.append(meter.now()),
    )
    spent = [b[0] - a[0] for a, b in pairwise(clock[1:])]
    wall = [b[1] - a[1] for a, b in pairwise(clock[1:])]
    tokens = options.rows * options.window
    extra = meter.extra()
    return {
        "cpu_seconds_per_token": median(spent) / tokens,
        "spread": (max(spent) - min(spent)) / median(spent),
        "tokens_per_second": tokens / median(wall),
        "extra_gb": round(extra, 3),
        "extra_copies": round(extra * 1e9 / (matrix.numel() * matrix.element_size()), 2),
    }


Result = dict[str, float] | None


def measure(way: str, stage: int, options: argparse.Namespace, **other: int) -> Result:
    """A way in a process of its own; None where it cannot do the stage. other: options in place of these."""
    if (way == "cached" and stage not in (2, 4)) or (way == "peft" and stage in (4, 5)):
        return None
    command = [sys.executable, __file__, "--child", way, str(stage), "--device", options.device]
    sizes = {"steps": options.steps, "rows": options.rows, "window": options.window} | other
    command += ["--shape", options.shape, *(word for k, v in sizes.items() for word in (f"--{k}", str(v)))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{way} {stage}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"stage {stage} {way:7} {found}", file=sys.stderr)
    return found


def shown(found: Result, key: str) -> float | None:
    """A figure of a way, if it can do the stage."""
    return round(found[key], 7) if found else None


def sweep_ratio(stages: dict[int, dict[str, Result]]) -> float | None:
    """CPU-seconds of the mask recipe over ours, cache included: so many settings, so many epochs of stage 2."""
    second = stages.get(2, {})
    mask, first, later = (second.get(w) for w in ("mask", "ours", "cached"))
    if not (mask and first and later):
        return None
    settings, epochs = SWEEP["settings"], SWEEP["epochs"]
    usual = settings * epochs * mask["cpu_seconds_per_token"]
    # `cached` trains all settings side by side.
    return usual / (first["cpu_seconds_per_token"] + epochs * later["cpu_seconds_per_token"])


def main() -> None:
    """Measure every way of every stage, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="stages 1 and 2, one step")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--shape", default="gemma-3-270m", choices=["gemma-3-270m", "medgemma-4b"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2, help="rows of a step")
    parser.add_argument("--window", type=int, default=256, help="tokens of a row")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, stage = options.child
        print(json.dumps(child(way, int(stage), options)))
        return
    if options.quick:
        options.steps = options.rows = 1
    chosen = (1, 2) if options.quick else tuple(GROUPS)
    ways = ("naive", "mask", "ours", "cached") if options.quick else WAYS
    stages = {s: {w: measure(w, s, options) if w in ways else None for w in WAYS} for s in chosen}
    small = {"steps": 1, "rows": 1, "window": 32}
    copies = {w: {s: shown(measure(w, s, options, **small), "extra_copies") for s in (1, 2, 3)} for w in ways[1:-1]}
    errors = None if options.quick or options.device != "cpu" else planner_error()
    print(json.dumps(table(stages, options) | {"extra_copies": copies, "planner_error": errors}))


def table(stages: dict[int, dict[str, Result]], options: argparse.Namespace) -> dict[str, Any]:
    """The figures as the issue names them."""
    unit = "CPU-seconds per token" if options.device == "cpu" else "seconds per token"
    rows = [
        {
            "stage": s,
            "train": list(GROUPS[s]),
            **{w: shown(ways[w], "cpu_seconds_per_token") for w in WAYS},
            **{key: {w: shown(ways[w], key) for w in WAYS} for key in ("tokens_per_second", "spread", "extra_gb")},
            "unit": unit,
        }
        for s, ways in stages.items()
    ]
    ratio = sweep_ratio(stages)
    return {
        "stages": rows,
        "sweep": SWEEP,
        "sweep_ratio": round(ratio, 1) if ratio else None,
        "shape": options.shape,
        "device": options.device,
    }


def planner_error() -> dict[str, dict[str, float]]:
    """Forecast peak memory over what a run measured, less one, for each training step; runs of one step a stage."""
    from bases import smollm2_model

    own = (
        "base.kind=folder",
        "base.name=smollm2-135m",
        f"base.source={smollm2_model()}",
        "base.license=Apache-2.0",
        "base.shape={hidden=576, layers=30, heads=9, kv_heads=3, head_dim=64, intermediate=1536, vocabulary=49152}",
        "tokenizer.place=append",
    )
    found = {}
    for name, settings in (("gemma-3-270m", ()), ("smollm2-135m", own)):
        with TemporaryDirectory() as place:
            command = [sys.executable, "-m", "vocabgraft", "run", "korean-gemma-270m", "--budget", "smoke"]
            command += ["--folder", f"{place}/run", "--until", "37-stage7"]
            subprocess.run([*command, *(word for s in settings for word in ("--set", s))], check=True)
            found[name] = errors_of(Path(place) / "run")
    return found


def errors_of(folder: Path) -> dict[str, float]:
    """By training step of a run on this machine's CPU."""
    from vocabgraft.forecast import forecast
    from vocabgraft.run import Run

    run = Run.open(folder)
    measured = {f.step: run.manifest(f.step) for f in forecast(run.recipe, "cpu")}
    return {
        f.step: round(f.memory_gb / m.peak_memory_gb - 1, 3)
        for f in forecast(run.recipe, "cpu")
        if (m := measured[f.step]) is not None
    }


if __name__ == "__main__":
    main()
