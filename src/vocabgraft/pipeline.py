"""The table of contents: 22 steps in order, what each reads and needs. CLI, notebooks and run folders follow it.

A step's fingerprint is the SHA-256 of the recipe sections it reads, the fingerprints of the steps it needs and
its own revision. So a changed value makes exactly the steps stale that depend on it, and the reason can be named.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from vocabgraft import machine as machine_facts
from vocabgraft.durable import digest
from vocabgraft.errors import RunError
from vocabgraft.machine import Machine
from vocabgraft.recipe import Recipe
from vocabgraft.run import Manifest, Run, damaged_outputs, describe_outputs, disk_error
from vocabgraft.steps.context import Context, Reporter, Silent, StepResult
from vocabgraft.team import Team, join

PHASES = (
    "data preparation",
    "tokenizer",
    "embedding",
    "staged training",
    "instruction tuning",
    "evaluation",
    "deployment",
)


@dataclass(frozen=True)
class Step:
    """One of the 22: `key` names its folder, `reads` the recipe sections, `needs` the steps it builds on."""

    key: str
    title: str
    run: str
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    revision: int = 1

    @property
    def trains(self) -> bool:
        """Whether all processes of a team take part."""
        return self.key[0] == "3" or self.key == "41-instruct"

    @property
    def phase(self) -> str:
        """The chapter, from the first digit of the key."""
        return PHASES[int(self.key[0])]


def _stage(number: int) -> Step:
    previous = "22-initialise" if number == 1 else f"3{number - 1}-stage{number - 1}"
    reads = (f"stage.{number - 1}", "training", "watch", "lora", "data.temperature", "data.max_epochs",
             "evaluate.probe_bytes", "evaluate.window_bytes")  # fmt: skip
    return Step(
        f"3{number}-stage{number}",
        f"train stage {number}",
        "stages:train_stage",
        needs=(previous, "04-preprocess", "13-expand-tokenizer"),
        reads=reads,
    )


STEPS: tuple[Step, ...] = (
    Step("00-environment", "look at this machine", "data:environment"),
    Step("01-sources", "find and check every source", "data:sources", ("00-environment",),
         ("base", "data.target", "data.replay", "data.dictionary", "data.license", "data.accept",
          "data.select.examples", "evaluate.target_questions", "evaluate.replay_questions", "instruct.questions",
          "instruct.instructions", "instruct.non_commercial")),
    Step("02-collect", "read documents", "collect:collect", ("01-sources",),
         ("data.language", "data.max_bytes", "data.max_unreadable"), revision=3),
    Step("03-dictionary", "read the bilingual dictionary", "dictionary:dictionary", ("01-sources",),
         ("data.language", "data.script", "data.license", "data.dictionary_words", "data.dictionary_support"),
         revision=2),
    Step("04-preprocess", "clean, deduplicate, hold out", "preprocess:preprocess", ("02-collect",),
         ("data.script", "data.min_script_share", "data.min_chars", "data.max_chars", "data.held_out",
          "data.near_duplicates", "data.privacy", "data.privacy_key", "data.quality", "data.select"), revision=6),
    Step("11-train-tokenizer", "learn new merges", "tokenizer:train", ("01-sources", "04-preprocess"), ("tokenizer",)),
    Step("12-select-pieces", "choose the new pieces", "tokenizer:select", ("11-train-tokenizer",), ("tokenizer",)),
    Step("13-expand-tokenizer", "graft the pieces and prove it", "tokenizer:expand",
         ("12-select-pieces", "04-preprocess"), ("tokenizer",), revision=2),
    Step("21-resize", "make room for the rows", "embedding:resize", ("13-expand-tokenizer",), ("base",)),
    Step("22-initialise", "give the new rows values", "embedding:initialise_rows",
         ("21-resize", "03-dictionary", "04-preprocess"),
         ("init", "training", "data.temperature", "data.max_epochs", "evaluate.probe_bytes", "evaluate.window_bytes"),
         revision=2),
    *(_stage(n) for n in range(1, 8)),
    Step("41-instruct", "tune on instructions, merge", "instruct:instruct",
         ("37-stage7", "04-preprocess", "13-expand-tokenizer"),
         ("instruct", "training", "watch", "lora", "evaluate.probe_bytes", "evaluate.window_bytes",
          "evaluate.target_questions", "evaluate.replay_questions", "data.privacy", "data.privacy_key"), revision=3),
    Step("51-korean", "evaluate the target language", "evaluation:target", ("41-instruct",),
         ("evaluate", "instruct", "data.script"), revision=2),
    Step("52-english", "evaluate retention", "evaluation:retention", ("41-instruct",),
         ("evaluate", "instruct", "data.script"), revision=2),
    # The model card that ships with the weights quotes 51 and 52.
    Step("61-quantize", "quantise and prove it", "deployment:quantize_model",
         ("41-instruct", "51-korean", "52-english", "04-preprocess", "13-expand-tokenizer"),
         ("name", "title", "deploy.quantize", "deploy.max_rise", "deploy.greedy_prompts", "deploy.compress"),
         revision=2),
    Step("62-serve", "serve, ask, stop", "deployment:serve_model", ("61-quantize",), ("deploy.question",), revision=2),
)  # fmt: skip
KEYS = tuple(s.key for s in STEPS)
#: Sections that say how work is done: any step may read them, and none is stale by them.
HOW = ("scale",)


@dataclass(frozen=True)
class Planned:
    """What is to happen with a step: done, stale (why), interrupted, or to do."""

    key: str
    title: str
    status: str
    reason: str = ""


def find_step(key: str) -> Step:
    """The step of this key, or of a unique start of it ('34')."""
    found = [s for s in STEPS if s.key == key] or [s for s in STEPS if s.key.startswith(key)]
    if len(found) == 1:
        return found[0]
    raise RunError(f"no step {key!r}; the steps are {', '.join(KEYS)}")


def readings(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """For each step the recipe values it reads; 01-sources also reads the bytes of local data files."""
    from vocabgraft.steps.data import source_stamps

    values = {s.key: {name: recipe.section(name) for name in s.reads} for s in STEPS}
    for number in range(1, 8):
        if number > len(recipe.stage) or "lora" not in recipe.stage[number - 1].train:
            values[f"3{number}-stage{number}"]["lora"] = None  # a stage without adapters does not care what they are
    values["01-sources"]["files"] = source_stamps(recipe)
    return values


def fingerprints(read: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Fingerprint of every step, from what `readings` found."""
    found: dict[str, str] = {}
    for step in STEPS:
        needs = {n: found[n] for n in step.needs}
        found[step.key] = digest({"reads": read[step.key], "needs": needs, "revision": step.revision})
    return found


def plan(recipe: Recipe, run: Run | None = None, *, again: Collection[str] = ()) -> list[Planned]:
    """Status of the 22 steps; those in `again` count as to do. Writes nothing, imports no torch."""
    read = readings(recipe)
    prints = fingerprints(read)
    rows: list[Planned] = []
    for step in STEPS:
        kept = run if step.key not in again else None
        manifest = kept.manifest(step.key) if kept else None
        if manifest is None:
            partial = kept is not None and (kept.folder / f"{step.key}.partial").exists()
            rows.append(Planned(step.key, step.title, "interrupted" if partial else "to do"))
        elif manifest.fingerprint == prints[step.key]:
            rows.append(Planned(step.key, step.title, "done"))
        else:
            rows.append(Planned(step.key, step.title, "stale", _why_stale(step, manifest, read[step.key], prints)))
    return rows


def _why_stale(step: Step, manifest: Manifest, read: dict[str, Any], prints: dict[str, str]) -> str:
    changes = list(_differences(manifest.reads, read, ""))
    changes += [f"{n} changed" for n in step.needs if manifest.inputs.get(n) != prints[n]]
    return "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "") or "code changed"


def _differences(old: Any, new: Any, path: str) -> Iterable[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    elif old != new:
        yield f"{path} was {_short(old)}, is now {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def dependants(key: str) -> list[str]:
    """The step and every step that builds on it, in order."""
    chosen = {key}
    for step in STEPS:
        if chosen & set(step.needs):
            chosen.add(step.key)
    return [k for k in KEYS if k in chosen]


def execute(
    run: Run,
    machine: Machine,
    *,
    from_step: str | None = None,
    until: str | None = None,
    reporter: Reporter | None = None,
) -> list[str]:
    """Do what is left, in order; returns the keys of the steps that ran.

    `from_step` sets that step and all that build on it aside and does them anew; `until` is the last step done.
    Raises RunError when a step is stale: nothing stale is ever built upon.
    """
    team = join()
    if not team.leads:
        return _follow(run, machine, team)
    again = dependants(find_step(from_step).key) if from_step else []
    last = KEYS.index(find_step(until).key) if until else len(KEYS) - 1
    try:
        with run.lock():
            rows = plan(run.recipe, run, again=again)
            stale = [r for r in rows if r.status == "stale"]
            if stale:
                raise RunError(_stale_message(run, stale))
            run.record()
            for path in (run.path(name) for key in again for name in (key, f"{key}.partial")):
                if path.exists():
                    run.set_aside(path)
            todo = [r.key for r in rows[: last + 1] if r.status != "done"]
            read = readings(run.recipe)
            prints = fingerprints(read)
            team.tell(todo)
            for key in todo:
                _do(find_step(key), run, machine, read[key], prints, reporter or Silent(), team)
                team.wait()
            return todo
    except OSError as e:
        raise disk_error(e, run.folder) from e


def _stale_message(run: Run, stale: list[Planned]) -> str:
    first = stale[0]
    after = len(dependants(first.key)) - 1
    return (
        f"{first.key} is stale: {first.reason}. Redo it and the {after} steps that build on it with\n"
        f"  vocabgraft run … --from {first.key}        (the old results move to {run.folder}/aside)\n"
        f"or keep them and work elsewhere with --folder runs/another-name"
    )


def _do(
    step: Step,
    run: Run,
    machine: Machine,
    read: dict[str, Any],
    prints: dict[str, str],
    reporter: Reporter,
    team: Team,
) -> None:
    _check_inputs(step, run)
    out = run.begin(step.key, prints[step.key])
    if step.trains:
        team.wait()  # the others read checkpoints in this folder
    run.log("start", step=step.key)
    reporter.say(f"{step.key}: {step.title}")
    module, function = step.run.split(":")
    machine_facts.reset_peak_memory()
    started = time.monotonic()
    try:
        work = getattr(importlib.import_module(f"vocabgraft.steps.{module}"), function)
        result: StepResult = work(Context(step.key, step.needs, run.recipe, run, out, machine, reporter, team))
        seconds = time.monotonic() - started
        manifest = Manifest(
            step=step.key,
            title=step.title,
            fingerprint=prints[step.key],
            reads=read,
            inputs={n: prints[n] for n in step.needs},
            outputs=describe_outputs(out),
            metrics=result.metrics,
            seconds=round(seconds, 2),
            peak_memory_gb=machine_facts.peak_memory_gb(),
            versions=machine_facts.versions(),
            licences=result.licences,
            machine=machine.as_json(),
        )
        run.finish(step.key, manifest)
    except OSError as e:
        raise disk_error(e, out) from e
    run.log("done", step=step.key, seconds=round(seconds, 2), metrics=result.metrics)


def _follow(run: Run, machine: Machine, team: Team) -> list[str]:
    """What processes other than the leader do: take part in the trainings, wait for the rest."""
    todo: list[str] = team.tell(None)
    for key in todo:
        step = find_step(key)
        if step.trains:
            team.wait()
            module, function = step.run.split(":")
            work = getattr(importlib.import_module(f"vocabgraft.steps.{module}"), function)
            out = run.folder / f"{key}.partial"
            work(Context(key, step.needs, run.recipe, run, out, machine, Silent(), team))
        team.wait()
    return todo


_verified: set[tuple[str, int, int]] = set()


def _check_inputs(step: Step, run: Run) -> None:
    """Refuse inputs that no longer are what their manifests say (truncation, bit flips)."""
    for key in step.needs:
        manifest = run.manifest(key)
        if manifest is None:
            raise RunError(f"{step.key} needs {key}, which is not done; run without --from or from {key}")
        fresh = []
        for row in manifest.outputs:
            path = run.path(key, row["path"])
            stat = path.stat() if path.exists() else None
            mark = (str(path), stat.st_size, stat.st_mtime_ns) if stat else None
            if mark is None or mark not in _verified:
                fresh.append(row)
        problems = damaged_outputs(run.path(key), fresh)
        if problems:
            raise RunError(f"{problems[0]}; redo that step with 'vocabgraft run … --from {key}'")
        for row in fresh:
            stat = run.path(key, row["path"]).stat()
            _verified.add((str(run.path(key, row["path"])), stat.st_size, stat.st_mtime_ns))
