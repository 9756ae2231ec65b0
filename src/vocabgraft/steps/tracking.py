"""Curves of a training while it runs: TensorBoard files in the run folder, and what else the recipe names.

The ledger stays the record; trackers only show. They get numbers, names of steps and of the recipe, never text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vocabgraft.machine import missing_extra
from vocabgraft.steps.context import Context

FOLDER = "tensorboard"
Log = Callable[[int, dict[str, float]], None]


@contextmanager
def tracked(context: Context) -> Iterator[Log]:
    """A function that takes a step and its numbers, while inside. MachineError for a tracker that is not installed."""
    if not context.team.leads:
        yield lambda step, values: None
        return
    trackers = [_started(name, context) for name in ("tensorboard", *context.recipe.watch.trackers)]

    def log(step: int, values: dict[str, float]) -> None:
        for tracker in trackers:
            tracker.log({f"{context.key}/{name}": value for name, value in values.items()}, step=step)

    try:
        yield log
    finally:
        for tracker in trackers:
            tracker.finish()


def _started(name: str, context: Context) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # trackers ask it which process they are in
    if name == "tensorboard":
        tracker = LOGGER_TYPE_TO_CLASS[name](context.key, logging_dir=str(context.run.folder / FOLDER))
    else:
        tracker = LOGGER_TYPE_TO_CLASS[name](context.recipe.name)
    try:
        tracker.start()
    except ImportError as e:
        raise missing_extra(name) from e
    return tracker
