"""Commands that examine what is there: a text and a tokenizer, a model, this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from vocabgraft.cli_answer import Json, answer


def measure(
    base: Annotated[str, typer.Argument(help="A folder with tokenizer.json, or a recipe: its base.")],
    text: Annotated[list[str], typer.Argument(help="Your texts: files, folders, samples:korean. Each is a domain.")],
    script: Annotated[str, typer.Option(help="Script of the new language.")] = "Hangul",
    pieces: Annotated[int, typer.Option(min=1, help="Learn at most so many pieces.")] = 16_384,
    min_count: Annotated[int, typer.Option(min=2, help="A merge must occur this often.")] = 5,
    as_json: Json = False,
) -> None:
    """Should I expand? What new pieces would save on your own text, and the answer in words."""
    from vocabgraft.advice import measure_sources
    from vocabgraft.console import ConsoleReporter
    from vocabgraft.machine import detect

    say = ConsoleReporter(quiet=as_json).say
    found = measure_sources(
        _tokenizer_folder(base, say),
        text,
        script=script,
        pieces=pieces,
        min_count=min_count,
        threads=detect(Path.cwd()).threads,
        say=say,
    )
    answer(as_json, found.as_json(), found.text())


def _tokenizer_folder(base: str, say: Callable[[str], None]) -> Path:
    """A folder as it is; a recipe's base is fetched as `run` would."""
    folder = Path(base)
    if folder.is_dir():
        return folder
    from vocabgraft.recipe import load_recipe
    from vocabgraft.steps.data import base_folder_of

    return base_folder_of(load_recipe(base).base, say)


def bakeoff(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with 13-expand-tokenizer done.")],
    start: Annotated[
        list[str] | None, typer.Option(metavar="METHOD[@NORM]", help="A start to try; default: all. May be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each start.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of the probe.")] = 50,
    trained: Annotated[
        int,
        typer.Option(min=0, metavar="TOKENS", help="Also train the best start's rows: two epochs of TOKENS."),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Which start for the new rows is best here? Try them on a run's model and text; recommends an `[init]`."""
    from vocabgraft.console import ConsoleReporter
    from vocabgraft.durable import write_text
    from vocabgraft.machine import detect, keep_freed_memory, use_threads
    from vocabgraft.run import Run

    opened, machine = Run.open(run), detect(run)
    use_threads(machine.threads)
    keep_freed_memory()
    from vocabgraft.report.figures import starts
    from vocabgraft.report.ledger import read_ledger
    from vocabgraft.report.pictures import starts_plot
    from vocabgraft.steps.bakeoff import bake_off_run

    found = bake_off_run(
        opened, machine, start or (), seeds=seeds, steps=steps, reporter=ConsoleReporter(quiet=as_json), trained=trained
    )
    ledger = read_ledger(run)
    write_text(run / "bakeoff.svg", starts_plot(starts(ledger), found.base_bpb))
    answer(as_json, found.as_json(), found.text())


def audit(
    model: Annotated[Path, typer.Argument(help="A model or tokenizer folder, or the base when two are given.")],
    expanded: Annotated[Path | None, typer.Argument(help="The expanded folder.")] = None,
    text: Annotated[list[Path] | None, typer.Option(help="A file of texts to compare on, beside ours.")] = None,
    script: Annotated[str | None, typer.Option(help="Script of the new pieces; derived when not given.")] = None,
    gguf: Annotated[Path | None, typer.Option(help="A GGUF file made of the expanded model.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A sample of code points and texts: seconds.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the certificate here, as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Check a vocabulary-expanded model, ours or not; with its base, certify it. Exit code 1: something is wrong."""
    from vocabgraft.certificate import examine

    found = examine(model, expanded, texts=text or (), script=script, gguf=gguf, quick=quick, out=out, quiet=as_json)
    answer(as_json, found.as_json(), found.text())
    raise typer.Exit(found.status == "fail")


def compare(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="What it is compared with, such as its control.")],
    as_json: Json = False,
) -> None:
    """Is a run better than its control, or than another run? The same questions and the same text, item by item."""
    from vocabgraft.run import Run
    from vocabgraft.steps.comparison import compare_runs

    found = compare_runs(Run.open(run), Run.open(other))
    answer(as_json, found.as_json(), found.text())


def doctor(as_json: Json = False) -> None:
    """Examine this machine: packages, memory, disk, GPU, access. Exit code 1 when something is missing."""
    from dataclasses import asdict

    from vocabgraft.doctor import examine

    findings = examine(Path.cwd())
    answer(as_json, [asdict(f) for f in findings], "\n".join(f.line() for f in findings))
    if any(f.status == "fail" for f in findings):
        raise typer.Exit(1)
