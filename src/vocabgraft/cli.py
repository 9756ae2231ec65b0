"""The command line: recipes, check, plan, run, status, show, report, compare, chat, serve, merge, measure, audit, …

Exit codes: 0 done, 1 a check found something wrong, 2 something a person can fix (one message, no traceback),
130/143 interrupted. `--json` prints one JSON value on standard output. Heavy imports happen inside commands.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from vocabgraft.cli_answer import Json, answer, emit, show_text
from vocabgraft.cli_deploy import merge
from vocabgraft.cli_examine import audit, bakeoff, compare, doctor, measure
from vocabgraft.cli_sources import sources
from vocabgraft.cli_talk import RunArg, chat, serve
from vocabgraft.errors import RunError, VocabgraftError

if TYPE_CHECKING:
    from vocabgraft.recipe import Recipe
    from vocabgraft.run import Run

app = typer.Typer(
    help="Teach an existing language model a new language without breaking what it knows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
RecipeArg = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a TOML file.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe value.")]
Budget = Annotated[str | None, typer.Option(help="smoke, demo, short or full: how much to train.")]
Folder = Annotated[Path | None, typer.Option(help="Run folder; default runs/NAME, or runs/NAME-BUDGET.")]


def main() -> NoReturn:
    """Entry point: errors of ours become one message and exit code 2."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app(standalone_mode=True)
    except VocabgraftError as e:
        sys.stderr.write(f"vocabgraft: {e}\n")
        if os.environ.get("VOCABGRAFT_DEBUG"):
            raise
        sys.exit(2)
    except SystemExit as e:
        if e.code == 130:  # typer's exit code for Ctrl-C
            sys.stderr.write("\nvocabgraft: interrupted; run the same command again to continue\n")
        raise
    sys.exit(0)


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the recipes that come with the package."""
    import tomllib

    from vocabgraft.recipe import shipped_recipes

    rows = [{"name": n, "title": tomllib.loads(p.read_text("utf-8"))["title"]} for n, p in shipped_recipes().items()]
    answer(as_json, rows, "\n".join(f"{r['name']:24} {r['title']}" for r in rows))


@app.command()
def copy(recipe: RecipeArg, to: Annotated[Path, typer.Argument(help="New file.")], as_json: Json = False) -> None:
    """Copy a recipe to a file of your own, to be edited."""
    from vocabgraft.recipe import recipe_path
    from vocabgraft.run import disk_error

    if to.exists():
        raise VocabgraftError(f"{to} exists already; give another name")
    source = recipe_path(recipe)
    try:
        shutil.copyfile(source, to)
    except OSError as e:
        raise disk_error(e, to) from e
    answer(as_json, {"from": str(source), "to": str(to)}, f"copied to {to}; check it: vocabgraft check {to}")


@app.command()
def check(recipe: RecipeArg, set_: Set = None, budget: Budget = None, as_json: Json = False) -> None:
    """Validate a recipe: every problem at once."""
    from vocabgraft.recipe import load_recipe

    loaded = load_recipe(recipe, set_ or (), budget)
    answer(as_json, loaded.model_dump(mode="json"), f"{recipe}: valid ({loaded.title})")


@app.command()
def plan(
    recipe: RecipeArg,
    set_: Set = None,
    budget: Budget = None,
    folder: Folder = None,
    gpu: Annotated[str, typer.Option(help="cpu, a5000, a6000, 4090, h100 or h200.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Say what is done, stale or to do, and what each stage needs, before anything runs."""
    from vocabgraft import forecast
    from vocabgraft.machine import detect
    from vocabgraft.pipeline import plan as plan_steps
    from vocabgraft.recipe import load_recipe
    from vocabgraft.steps import mixing

    loaded = load_recipe(recipe, set_ or (), budget)
    run = _existing_run(_run_folder(recipe, loaded, folder), loaded)
    rows = plan_steps(loaded, run)
    memory = detect(Path.cwd()).memory_gb if gpu == "cpu" else None
    stages = forecast.forecast(loaded, gpu, memory_gb=memory)
    counted = run is not None and any(r.key == mixing.STEP and r.status == "done" for r in rows)
    mix = mixing.planned(loaded, run) if run and counted else []
    verdict = forecast.verdict(stages)
    if as_json:
        emit({"steps": [vars(r) for r in rows], "stages": [vars(s) for s in stages], "verdict": verdict, "mix": mix})
        return
    lines = [f"{r.key:22} {r.status:12} {r.title}" + (f" ({r.reason})" if r.reason else "") for r in rows]
    show_text("\n".join([*lines, "", *forecast.table(stages), *mixing.plan_lines(mix), "", verdict]))


@app.command()
def run(
    recipe: RecipeArg,
    set_: Set = None,
    budget: Budget = None,
    folder: Folder = None,
    from_step: Annotated[
        str | None, typer.Option("--from", metavar="STEP", help="Redo this step and what needs it.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="STEP", help="Stop after this step.")] = None,
    micro_batch: Annotated[int, typer.Option(help="Packed rows a forward pass (memory, not result).")] = 2,
    as_json: Json = False,
) -> None:
    """Do the 22 steps: skip what is done, continue what was interrupted, refuse what is stale."""
    from vocabgraft.console import ConsoleReporter
    from vocabgraft.machine import detect, keep_freed_memory, use_threads
    from vocabgraft.pipeline import execute
    from vocabgraft.recipe import load_recipe, recipe_path
    from vocabgraft.run import Run
    from vocabgraft.team import join

    loaded = load_recipe(recipe, set_ or (), budget)
    place = _run_folder(recipe, loaded, folder)
    team = join()
    reporter = ConsoleReporter()
    opened = Run.create(place, loaded, recipe_path(recipe).read_text("utf-8")) if team.leads else Run(place, loaded)
    machine = detect(place, micro_batch=micro_batch)
    use_threads(max(1, machine.threads // team.size))
    keep_freed_memory()
    done = execute(opened, machine, from_step=from_step, until=until, reporter=reporter)
    if not team.leads:
        return
    if as_json:
        emit({"run": str(place), "done": done})
    elif done:
        reporter.say(
            f"done: {len(done)} steps. Read it: vocabgraft report {place}; talk to it: vocabgraft chat {place}"
        )
    else:
        far = f"up to {until} " if until else ""
        show_text(f"{place}: every step {far}is done, nothing to do. Read it: vocabgraft report {place}")


@app.command()
def status(run: RunArg, as_json: Json = False) -> None:
    """Show the state of a run's 22 steps."""
    from vocabgraft.pipeline import plan as plan_steps
    from vocabgraft.run import Run

    opened = Run.open(run)
    rows = [vars(r) | _cost(opened, r.key) for r in plan_steps(opened.recipe, opened)]
    lines = [
        f"{r['key']:22} {r['status']:12} {r.get('seconds', 0):8.1f} s "
        f"{r.get('peak_memory_gb', 0):5.2f} GB  {r['reason']}"
        for r in rows
    ]
    answer(as_json, {"run": str(run), "recipe": opened.recipe.name, "steps": rows}, "\n".join(lines))


def _cost(run: Run, key: str) -> dict[str, Any]:
    manifest = run.manifest(key)
    return {"seconds": manifest.seconds, "peak_memory_gb": manifest.peak_memory_gb} if manifest else {}


@app.command()
def show(run: RunArg, step: Annotated[str, typer.Argument(metavar="STEP")], as_json: Json = False) -> None:
    """Show the manifest of one step: inputs, outputs with SHA-256, figures, licences."""
    from vocabgraft.pipeline import find_step
    from vocabgraft.run import Run

    key = find_step(step).key
    manifest = Run.open(run).manifest(key)
    if manifest is None:
        raise RunError(f"{key} is not done in {run}; see: vocabgraft status {run}")
    lines = [f"{key}: {manifest.title} ({manifest.seconds} s, {manifest.peak_memory_gb} GB)"]
    lines += [f"  {o['sha256'][:12]} {o['bytes']:>13,} {o['path']}" for o in manifest.outputs]
    lines += [json.dumps(manifest.metrics, ensure_ascii=False, indent=1)]
    answer(as_json, manifest.as_json(), "\n".join(lines))


@app.command()
def report(
    run: RunArg,
    out: Annotated[Path | None, typer.Option(help="HTML file; default RUN/report.html.")] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a run as one HTML page, and print its summary."""
    from vocabgraft.durable import write_text
    from vocabgraft.report.html import render
    from vocabgraft.report.ledger import read_ledger
    from vocabgraft.report.text import summary
    from vocabgraft.run import Run, disk_error

    Run.open(run)
    ledger = read_ledger(run)
    goal = out or run / "report.html"
    try:
        write_text(goal, render(ledger))
    except OSError as e:
        raise disk_error(e, goal) from e
    metrics = {k: m.get("metrics", {}) for k, m in ledger.manifests.items()}
    answer(as_json, {"report": str(goal), "metrics": metrics}, f"{summary(ledger)}\n\n{goal}")


for _command in (compare, chat, serve, merge, measure, bakeoff, audit, sources, doctor):
    app.command()(_command)


def _run_folder(source: str, recipe: Recipe, folder: Path | None) -> Path:
    """Default: runs/NAME for the budget the recipe file names, runs/NAME-BUDGET for another."""
    if folder is not None:
        return folder
    import tomllib

    from vocabgraft.recipe import recipe_path

    usual = tomllib.loads(recipe_path(source).read_text("utf-8")).get("budget", "demo")
    return Path("runs") / (recipe.name if recipe.budget == usual else f"{recipe.name}-{recipe.budget}")


def _existing_run(folder: Path, recipe: Recipe) -> Run | None:
    from vocabgraft.run import Run

    return Run(folder, recipe) if folder.is_dir() else None
