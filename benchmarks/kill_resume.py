"""Kill a run of all stages at random moments, start it again, and compare what comes out, byte by byte.

    python benchmarks/kill_resume.py             60 kills, several minutes
    python benchmarks/kill_resume.py --quick     8 kills, at most 3 minutes

The recipe is tiny-cpu up to stage 7; every step of a training writes a checkpoint. Each life of a run is a fork of a
process that has torch imported and has not used it yet, killed by SIGKILL after a random time. `blocked` counts lives
that ended by themselves with an error; `diverged` runs whose weights, loss logs, optimiser states or other outputs
differ from those of the run that nobody killed. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch  # noqa: F401 (imported before the forks, used after)
import transformers  # noqa: F401
from lives import ended

from vocabgraft.machine import detect, use_threads
from vocabgraft.pipeline import STEPS, execute
from vocabgraft.recipe import load_recipe
from vocabgraft.run import Run

LAST = "37-stage7"
KILLS_A_RUN = 12


def life(folder: Path) -> int:
    """A process that goes on with the run to its end; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with (folder.parent / "errors.txt").open("a") as log:
            os.dup2(log.fileno(), 2)
            use_threads(1)
            run = Run.create(folder, load_recipe("tiny-cpu"), "")
            execute(run, detect(folder, checkpoint_seconds=0.0), until=LAST)
            code = 0
    except BaseException as e:  # a fork must not go on as its parent
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
    finally:
        os._exit(code)


def killed_after(child: int, seconds: float) -> int | None:
    """Exit status of a life that ended within the time; None when it was killed at the end of it."""
    code = ended(child, seconds)
    if code is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return code


def results(folder: Path) -> dict[str, Any]:
    """SHA-256 of every output of the embedding and training steps, and the logs of the trainings."""
    run, found = Run.open(folder), dict[str, Any]()
    for step in STEPS:
        manifest = run.manifest(step.key)
        if manifest is None or step.key[0] not in "23":
            continue
        found[step.key] = {o["path"]: o["sha256"] for o in manifest.outputs}
        found[f"{step.key} log"] = [manifest.metrics.get(k) for k in ("losses", "optimizer", "frozen", "bits_per_byte")]
    return found


def killed_run(folder: Path, seconds: float, kills: int, chance: random.Random) -> tuple[int, int]:
    """Kills that hit, and lives that ended by themselves with an error. The last life is left alone."""
    hit = blocked = 0
    while hit < kills:
        code = killed_after(life(folder), chance.uniform(0.0, 2 * seconds / kills))
        if code is None:
            hit += 1
        elif code == 0:
            return hit, blocked
        else:
            blocked += 1
            if blocked > 3:
                return hit, blocked
    return hit, blocked + (killed_after(life(folder), 10 * seconds + 60) != 0)


def main() -> None:
    """The run that nobody kills, then killed ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wanted, chance = (8 if options.quick else 60), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        began = time.monotonic()
        if killed_after(life(scratch / "whole"), 600) != 0:
            sys.exit((scratch / "errors.txt").read_text())
        seconds = time.monotonic() - began
        expected, kills, blocked, diverged, runs = results(scratch / "whole"), 0, 0, 0, 0
        while kills < wanted:
            folder = scratch / f"killed-{runs}"
            hit, errors = killed_run(folder, seconds, min(KILLS_A_RUN, wanted - kills), chance)
            kills, blocked, runs = kills + hit, blocked + errors, runs + 1
            diverged += errors == 0 and results(folder) != expected
            print(f"run {runs}: {hit} kills, {errors} blocked, {diverged} diverged", file=sys.stderr)
        told = (scratch / "errors.txt").read_text().splitlines()[-3:] if blocked else []
        print(
            json.dumps(
                {
                    "kills": kills,
                    "blocked": blocked,
                    "diverged": diverged,
                    "runs": runs,
                    "outputs_compared": sum(len(v) for v in expected.values()),
                    "seconds_of_a_run": round(seconds, 1),
                    "errors": told,
                }
            )
        )


if __name__ == "__main__":
    main()
