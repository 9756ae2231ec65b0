"""A process that does tasks for another: one JSON line in, one out. It ends when its caller does, however that ends."""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict
from queue import SimpleQueue

from vocabgraft.errors import VocabgraftError
from vocabgraft.scale.tasks import Failure, Task, perform


def attempt(task: Task) -> Failure | None:
    """Do a task; what went wrong, if anything did. A fault of ours is shown with its traceback."""
    try:
        perform(task)
    except Exception as e:
        if not isinstance(e, VocabgraftError | OSError):
            traceback.print_exc()
        return Failure.of(e)
    return None


def end_with_caller(
    hand_on: Callable[[str], None] = lambda _: None, end: Callable[[], object] = lambda: os._exit(0)
) -> None:
    """Watch standard input: a line is handed on, its end means that nobody waits for this process."""

    def watch() -> None:
        held = b""
        # Not by `sys.stdin`: its lock would be held in whatever this process forks.
        while block := os.read(0, 1 << 16):
            *whole, held = (held + block).split(b"\n")
            for line in whole:
                hand_on(line.decode())
        end()

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Do what standard input asks for."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    lines: SimpleQueue[str] = SimpleQueue()
    end_with_caller(lines.put)
    while True:
        failure = attempt(Task.from_json(json.loads(lines.get())))
        answers.write(json.dumps(asdict(failure) if failure else {}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
