"""Kill the steps that read and clean at random moments, go on, and compare what is published, byte by byte.

    python benchmarks/data_kills.py             50 kills for each engine and number of workers: hours, most of it Ray
    python benchmarks/data_kills.py --quick     2 kills for each engine with 2 workers: minutes

Engines are embedded and datatrove's local and Ray executors, with 1, 2 and 4 workers, over files of Korean sentences
with duplicates, near-duplicates, personal data and bad records. Half of the kills are of the run itself, half of a
process that has a task at work, where there is one. `told` counts runs that ended by themselves with the sentence that
asks for the same command again, and got it; `blocked` those that ended with any other error or took ten times as long;
`diverged` those whose outputs, counts or receipts differ from the run of one embedded worker that nobody killed.
Engines that are not installed are named in `missing`. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lives import ended

from vocabgraft.errors import MachineError
from vocabgraft.machine import detect
from vocabgraft.pipeline import execute
from vocabgraft.recipe import Recipe, load_recipe
from vocabgraft.run import Run
from vocabgraft.steps.preprocess import Corpus  # noqa: F401 (imported before the forks, used after)

STEPS = ("02-collect", "04-preprocess")
ENGINES = {"embedded": (), "local": ("datatrove",), "ray": ("datatrove", "ray")}
WORKERS = (1, 2, 4)
KILLS_A_RUN = 10
ASKED_AGAIN = 75  # the exit code of a life that ended with a sentence that asks for the same command
WORDS = ["혈압", "환자", "간호사", "처방", "검사", "수술", "체중", "운동", "식사", "병원", "호흡", "맥박"]


def sentence(n: int) -> str:
    """A text that no other number has."""
    draw = random.Random(n)
    return f"{n}번 " + " ".join(draw.choice(WORDS) + draw.choice("은는이가을를") for _ in range(40)) + "."


def written(folder: Path, files: int = 6, rows: int = 400) -> list[str]:
    """Files whose texts overlap; each with near-duplicates, a telephone number and a record that is not UTF-8."""
    folder.mkdir()
    for n in range(files):
        texts = [sentence(n * rows // 2 + i) for i in range(rows)]
        texts += [f"{t} 끝." for t in texts[:20]] + [f"{sentence(90_000 + n)} 연락처: 010-1234-{1000 + n}", "짧다"]
        lines = [json.dumps({"text": t, "source": f"s{n % 2}"}, ensure_ascii=False).encode() for t in texts]
        (folder / f"{n}.jsonl").write_bytes(b"\n".join([*lines, b'{"text": "\xff"}', b""]))
    return [str(folder / f"{n}.jsonl") for n in range(files)]


class Place:
    """A folder with the corpus, a run that has steps 00 and 01 behind it, and what lives wrote as they ended."""

    def __init__(self, scratch: Path) -> None:
        self.folder, self.errors = scratch, scratch / "errors.txt"
        files = written(scratch / "corpus")
        self._sets = [f"data.target={files[:4]}", f"data.replay={files[4:]}", "data.max_unreadable=9"]
        if ended(self.life(scratch / "first", self.recipe(), until="01"), 120) != 0:
            sys.exit(self.errors.read_text("utf-8"))

    def recipe(self, *more: str) -> Recipe:
        return load_recipe("tiny-cpu", [*self._sets, "data.min_chars=20", *more])

    def begun(self, name: str) -> Path:
        """A run of its own that goes on behind step 01."""
        shutil.copytree(self.folder / "first", self.folder / name)
        return self.folder / name

    def life(self, folder: Path, recipe: Recipe, until: str = "04") -> int:
        """A fork that goes on with the run to its end; its id."""
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            with self.errors.open("a") as log:
                os.dup2(log.fileno(), 2)
            execute(Run.create(folder, recipe, ""), detect(folder), until=until)
            code = 0
        except MachineError as e:
            code = ASKED_AGAIN if "run the same command again" in str(e) else 1
            print(e, file=sys.stderr)
        except BaseException as e:  # a fork must not go on as its parent
            print(f"{type(e).__name__}: {e}", file=sys.stderr)
        finally:
            os._exit(code)


def at_work(child: int, folder: Path) -> list[int]:
    """Processes that have a task: the embedded engine's children, or those that have marked it for an executor."""
    found = []
    for mark in folder.glob("shards/*/call-*/running/*.json"):
        try:
            found.append(int(mark.read_text("utf-8").split()[1]))
        except (OSError, ValueError, IndexError):
            continue
    if found or any(folder.glob("shards/*/call-*")):
        return found
    try:
        return [int(c) for t in Path(f"/proc/{child}/task").glob("*/children") for c in t.read_text("utf-8").split()]
    except OSError:
        return []


def results(folder: Path) -> list[Any]:
    """SHA-256 of every output of both steps, their counts, and what each shard's receipt says of its outputs."""
    manifests = [Run.open(folder).manifest(key) for key in STEPS]
    told = [({o["path"]: o["sha256"] for o in m.outputs}, m.metrics) for m in manifests if m]
    receipts = {
        str(path.relative_to(folder)): json.loads(path.read_text("utf-8"))["outputs"]
        for path in sorted((folder / "shards").glob("*/*/receipt.json"))
    }
    return [told, receipts]


def killed_run(
    place: Place, folder: Path, recipe: Recipe, seconds: float, kills: int, chance: random.Random
) -> Counter:
    """A run that is killed so many times at most, then left alone; what happened."""
    happened: Counter[str] = Counter()
    child = place.life(folder, recipe)
    while True:
        hit = happened["run"] + happened["worker"]
        code = ended(child, chance.uniform(0.0, seconds) if hit < kills else 10 * seconds + 120)
        if code == 0:
            return happened
        if code is None and hit < kills:
            workers = at_work(child, folder) if chance.random() < 0.5 else []
            victim = chance.choice(workers) if workers else child
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            happened["worker" if workers else "run"] += 1
            if victim != child:
                continue
            os.waitpid(child, 0)
        elif code == ASKED_AGAIN and happened["told"] < 2 * KILLS_A_RUN:
            happened["told"] += 1
        else:
            if code is None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            happened["blocked"] += 1
            return happened
        child = place.life(folder, recipe)


def undisturbed(place: Place, name: str, recipe: Recipe) -> tuple[float, list[Any]]:
    """Seconds and results of a run that nobody kills."""
    began, folder = time.monotonic(), place.begun(name)
    if ended(place.life(folder, recipe), 600) != 0:
        sys.exit(place.errors.read_text("utf-8"))
    return time.monotonic() - began, results(folder)


def cell(place: Place, engine: str, workers: int, wanted: int, expected: list[Any]) -> dict[str, int]:
    """One engine with so many workers: clean, then killed; what happened."""
    name, chance, began = f"{engine}-{workers}", random.Random(f"{engine}{workers}"), time.monotonic()
    recipe = place.recipe(f"scale.engine={engine}", f"scale.workers={workers}")
    seconds, found = undisturbed(place, name, recipe)
    total = Counter({"run": 0, "worker": 0, "told": 0, "blocked": 0, "diverged": int(found != expected)})
    while (left := wanted - total["run"] - total["worker"]) > 0:
        folder = place.begun(f"{name}-killed")
        happened = killed_run(place, folder, recipe, seconds, min(KILLS_A_RUN, left), chance)
        left_over = any(folder.rglob("*.partial*")) or any(folder.glob("shards/*/call-*"))
        total.update(happened)
        total["diverged"] += not happened["blocked"] and (results(folder) != expected or left_over)
        shutil.rmtree(folder)
    print(f"{name}: {seconds:.1f} s clean, {time.monotonic() - began:.0f} s in all; {dict(total)}", file=sys.stderr)
    return {"kills": total["run"] + total["worker"], **total}


def main() -> None:
    """Every engine that is installed, every number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 kills for each engine, 2 workers")
    parser.add_argument("--kills", type=int, default=50, help="for each engine and number of workers")
    parser.add_argument("--workers", type=int, choices=WORKERS, action="append", help="so many workers alone")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="this engine alone")
    options = parser.parse_args()
    wanted, cells = 2 if options.quick else options.kills, {}
    counts = options.workers or ((2,) if options.quick else WORKERS)
    missing = [name for name, needs in ENGINES.items() if not all(map(importlib.util.find_spec, needs))]
    with tempfile.TemporaryDirectory() as scratch:
        place = Place(Path(scratch))
        _, expected = undisturbed(place, "alone", place.recipe("scale.workers=1"))
        for engine in (name for name in options.engine or ENGINES if name not in missing):
            for workers in counts:
                cells[f"{engine}-{workers}"] = cell(place, engine, workers, wanted, expected)
        told = place.errors.read_text("utf-8").splitlines()[-3:] if any(c["blocked"] for c in cells.values()) else []
    totals = {key: sum(c[key] for c in cells.values()) for key in ("kills", "blocked", "diverged")}
    print(json.dumps({**totals, "cells": cells, "missing": missing, "told": told}, ensure_ascii=False))


if __name__ == "__main__":
    main()
