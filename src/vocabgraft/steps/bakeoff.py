"""Try ways to start the new rows on one model and corpus: `vocabgraft bakeoff RUN`.

Bits per byte right after the start do not tell which start is best; after a short training they do
(arXiv 2608.03494). So each start is measured, trained for a few dozen steps with the
body frozen, and measured again, over several seeds. Each trial is kept as it ends, so an interrupted bake-off goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vocabgraft.durable import write_json
from vocabgraft.embedding.initialise import METHODS
from vocabgraft.errors import RecipeError, RunError
from vocabgraft.evaluation.statistics import Mean, mean_of_runs
from vocabgraft.machine import Machine
from vocabgraft.recipe_sections import Init, Rates
from vocabgraft.run import Run
from vocabgraft.steps.context import Context, Reporter
from vocabgraft.steps.embedding import old_text, open_state, probe
from vocabgraft.steps.packing import corpus_mixture, rows_per_step, schedule_of
from vocabgraft.steps.start import BOTH, train_rows
from vocabgraft.steps.start import start as start_rows
from vocabgraft.steps.tokenizer import load_expansion

# What decides a trial beside its method and norm: of `[init]`, these.
_BLENDING = {"wechsel_share", "neighbours", "temperature", "identical_words", "vector_size", "min_count", "row_untied"}
_TEACHING = {"tokens", "tokens_per_step", "relative_lr", "row_epsilon"}


@dataclass(frozen=True)
class Start:
    """One way to start: a method of `[init]` and a norm."""

    method: str
    norm: float

    @property
    def name(self) -> str:
        """As it is written on the command line: 'hybrid@0.75'."""
        return f"{self.method}@{self.norm:g}"


@dataclass(frozen=True)
class Row:
    """What one start gave: over seeds, bits per byte of target text at once and after the probe, English KL in nats."""

    name: str
    bpb_step0: Mean
    bpb_probe: Mean
    english_kl: Mean
    seconds: Mean


@dataclass(frozen=True)
class Bakeoff:
    """The table, best first, and what it is to be held against."""

    rows: tuple[Row, ...]
    base_bpb: float
    default: str
    kl_bound: float
    steps: int
    tokens: int
    seeds: int
    trained_rows_bpb: float | None = None
    """Of the best start, its rows trained alone for two epochs; None when not asked for."""

    @property
    def best(self) -> Row:
        """Least bits per byte after the probe."""
        return self.rows[0]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"best": self.best.name, "recommended": self.recommended()}

    def recommended(self) -> str:
        """The `[init]` section of the best start."""
        method, _, norm = self.best.name.partition("@")
        return f'[init]\nmethod = "{method}"\nnorm = {norm}'

    def text(self) -> str:
        """For people."""
        head = f"{'start':24} {'bits/byte at once':>20} {'after the probe':>20} {'English KL':>12} {'seconds':>8}"
        lines = [
            f"{r.name:24} {_shown(r.bpb_step0):>20} {_shown(r.bpb_probe):>20} {r.english_kl.mean:12.5f} "
            f"{r.seconds.mean:8.1f}" + ("  (the recipe's)" if r.name == self.default else "")
            for r in self.rows
        ]
        told = (
            f"base {self.base_bpb:.4f} bits per byte; probe of {self.steps} steps, {self.tokens:,} tokens, "
            f"{self.seeds} seeds; 95 % intervals over seeds\n"
            f"English KL in nats a token; rows that are all the mean of the base's give at most {self.kl_bound:.5f}"
        )
        if self.trained_rows_bpb is not None:
            told += f"\nrows of the best start alone, trained for two epochs: {self.trained_rows_bpb:.4f} bits per byte"
        return "\n".join([head, *lines, "", told, "", self.recommended()])


def _shown(m: Mean) -> str:
    return f"{m.mean:.4f}" if m.low is None or m.high is None else f"{m.mean:.4f} ± {m.high - m.mean:.4f}"


def bake_off(
    context: Context, starts: Sequence[Start], *, seeds: int, steps: int, trained: int = 0, kept: Path | None = None
) -> Bakeoff:
    """Measure every start on the run's model and texts; 13-expand-tokenizer must be done.

    trained: tokens of target text on which the best start's rows are trained for two epochs, 0 for none. kept: a file
    of trials that ended before; new ones are added to it.
    """
    graft = open_state(context, None, with_adapters=False)
    recipe, (expansion, _) = context.recipe, load_expansion(context)
    base_bpb = _target(context, graft, context.base_folder())
    untouched = {k: v.clone() for k, v in graft.rows.state().items()}
    english, trials = old_text(context, graft), _Trials(context, kept, steps)
    measured: dict[tuple[str, ...], dict[str, float]] = {}
    found: dict[str, list[dict[str, float]]] = {s.name: [] for s in starts}
    for seed in range(recipe.training.seed, recipe.training.seed + seeds):
        batches = corpus_mixture(context, recipe.stage[2].replay_share, seed, _tokens(context, steps))
        for start in starts:
            known = trials.of(start, seed)
            if known is None:
                context.reporter.say(f"{start.name}, seed {seed}")
                graft.rows.load(untouched)
                known = _trial(context, graft, _init(recipe.init, start), batches, english, seed, steps, measured)
                trials.keep(start, seed, known)
            found[start.name].append(known)
    rows = sorted((_row(name, each) for name, each in found.items()), key=lambda r: r.bpb_probe.mean)
    best = next(s for s in starts if s.name == rows[0].name)
    graft.rows.load(untouched)
    old = len(graft.rows.is_new) - len(expansion.ids)
    return Bakeoff(
        rows=tuple(rows),
        base_bpb=base_bpb,
        default=_own(recipe.init).name,
        kl_bound=math.log1p(len(expansion.ids) / old),
        steps=steps,
        tokens=_tokens(context, steps),
        seeds=seeds,
        trained_rows_bpb=_trained(context, graft, best, trained, trials, kept) if trained else None,
    )


class _Trials:
    """Trials that ended, one JSON line each, under a hash of everything that decides them."""

    def __init__(self, context: Context, path: Path | None, steps: int) -> None:
        self._path, self._found = path, dict[str, dict[str, float]]()
        manifest = context.run.manifest("13-expand-tokenizer")
        recipe = context.recipe.model_dump(include={"init", "training", "stage", "evaluate", "data"}, mode="json")
        self._init = {k: v for k, v in recipe.pop("init", {}).items() if k in _BLENDING | _TEACHING}
        self._settings = [manifest.fingerprint if manifest else "", recipe, steps]
        lines = path.read_text("utf-8").splitlines() if path and path.exists() else []
        for line in lines:
            try:
                self._found |= {(raw := json.loads(line))["key"]: raw["found"]}
            except (ValueError, KeyError):  # a line that a kill cut off
                continue

    def of(self, start: Start, seed: int | str) -> dict[str, float] | None:
        """What a trial found, if it ended."""
        return self._found.get(self.key(start, seed))

    def keep(self, start: Start, seed: int | str, found: dict[str, float]) -> None:
        """Add a trial."""
        if self._path is not None:
            line = {"key": self.key(start, seed), "start": start.name, "seed": seed, "found": found}
            with self._path.open("a", encoding="utf-8") as f:
                f.write("\n" * self._cut_off() + json.dumps(line) + "\n")

    def _cut_off(self) -> bool:
        raw = self._path.read_bytes() if self._path and self._path.exists() else b""
        return bool(raw) and not raw.endswith(b"\n")

    def key(self, start: Start, seed: int | str) -> str:
        """Of what decides a trial. seed: of its texts, or what else was done with the start."""
        init = {k: v for k, v in self._init.items() if k not in _TEACHING or start.method == "distilled"}
        return hashlib.sha256(json.dumps([self._settings, init, start.name, seed]).encode()).hexdigest()


def _target(context: Context, graft: Any, tokenizer: Path) -> float:
    return probe(context, graft.model, tokenizer, ("target",))["target"]


def _tokens(context: Context, steps: int) -> int:
    return steps * rows_per_step(context.recipe) * context.recipe.training.window


def _own(init: Init) -> Start:
    return Start(init.method, init.norm)


def _init(init: Init, start: Start) -> Init:
    return Init.model_validate(init.model_dump() | {"method": start.method, "norm": start.norm})


def _trial(
    context: Context,
    graft: Any,
    init: Init,
    batches: Any,
    english: Any,
    seed: int,
    steps: int,
    measured: dict[tuple[str, ...], dict[str, float]],
) -> dict[str, float]:
    """One start, measured at once and after the probe. measured: what rows of these hashes gave before, since most
    starts are the same for every seed, and some the same as others (EEVE's on a tied model)."""
    folder = load_expansion(context)[1]
    began = time.monotonic()
    start_rows(context, graft, init, seed)
    seconds = time.monotonic() - began
    rows = tuple(value for name, value in sorted(graft.rows.hashes().items()) if name.endswith(".new"))
    if rows not in measured:
        taken = english.taken_by(graft.rows.new["output"].detach())
        measured[rows] = {"bpb_step0": _target(context, graft, folder), "english_kl": taken}
    probed = (*rows, str(seed))
    if probed not in measured:
        _train_rows(context, graft, batches, steps)
        measured[probed] = {"bpb_probe": _target(context, graft, folder)}
    return measured[rows] | measured[probed] | {"seconds": seconds}


def _trained(context: Context, graft: Any, start: Start, tokens: int, trials: _Trials, kept: Path | None) -> float:
    """Bits per byte of target text after two epochs of the rows alone on so much of it; goes on where it stopped."""
    seed, name = context.recipe.training.seed, f"trained on {tokens} tokens"
    if known := trials.of(start, name):
        return known["bpb"]
    context.reporter.say(f"training rows for two epochs of {tokens:,} tokens")
    folder = kept.with_name("bakeoff.trained") / trials.key(start, name)[:16] if kept else None
    start_rows(context, graft, _init(context.recipe.init, start), seed)
    batches = corpus_mixture(context, 0.0, seed, tokens)
    _train_rows(context, graft, batches, max(1, 2 * len(batches.target) // batches.rows_per_step), folder)
    found = _target(context, graft, load_expansion(context)[1])
    trials.keep(start, name, {"bpb": found})
    if folder:
        shutil.rmtree(folder.parent, ignore_errors=True)  # a short training wrote none
    return found


def _train_rows(context: Context, graft: Any, batches: Any, steps: int, checkpoints: Path | None = None) -> None:
    rates = Rates(new=context.recipe.stage[2].lr.new)
    train_rows(context, graft, batches, schedule_of(context.recipe, BOTH, rates, steps), "probe", None, checkpoints)


def _row(name: str, trials: list[dict[str, float]]) -> Row:
    def over(key: str) -> Mean:
        return mean_of_runs([t[key] for t in trials])

    return Row(name, over("bpb_step0"), over("bpb_probe"), over("english_kl"), over("seconds"))


def bake_off_run(
    run: Run, machine: Machine, names: Sequence[str], *, seeds: int, steps: int, reporter: Reporter, trained: int = 0
) -> Bakeoff:
    """Bake off the named starts (default: every method, and the subword mean at other norms) on a run, and write
    `bakeoff.json` into its folder; trials that ended are kept beside it. RunError when the run is not far enough,
    RecipeError for an unknown start."""
    if run.manifest("13-expand-tokenizer") is None:
        raise RunError(f"{run.folder}: 13-expand-tokenizer is not done; vocabgraft run … --until 13 first")
    starts = read_starts(names, _own(run.recipe.init))
    with TemporaryDirectory() as scratch:
        context = Context("22-initialise", ("21-resize",), run.recipe, run, Path(scratch), machine, reporter)
        kept = run.folder / "bakeoff.trials.jsonl"
        found = bake_off(context, starts, seeds=seeds, steps=steps, trained=trained, kept=kept)
    write_json(run.folder / "bakeoff.json", found.as_json())
    return found


def all_starts(own: Start) -> list[Start]:
    """The recipe's own, every method as it comes, and the subword mean at three quarters and all of its parts' norm."""
    found = [Start(method, 0.0) for method in METHODS]
    return list(dict.fromkeys([own, *found, Start("subword-mean", 0.75), Start("subword-mean", 1.0)]))


def read_starts(names: Sequence[str], own: Start) -> list[Start]:
    """Starts from 'method@norm' or 'method', at the norm of the recipe's `own`; `all_starts` from no names. RecipeError
    lists what is wrong."""
    found, problems = [], []
    for name in names:
        method, _, given = name.partition("@")
        try:
            start = Start(method, float(given or own.norm))
        except ValueError:
            start = Start(method, -1.0)
        if method not in METHODS or not 0 <= start.norm <= 2:
            problems.append(f"{name!r} is no start; METHOD or METHOD@NORM, NORM from 0 to 2: {', '.join(METHODS)}")
        found.append(start)
    if problems:
        raise RecipeError("--start", problems)
    return found or all_starts(own)
