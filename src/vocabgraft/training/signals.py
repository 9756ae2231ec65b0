"""A stop that comes in the middle of a training step waits for its end, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_WAITING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def held_signals() -> Iterator[Callable[[], bool]]:
    """While inside, SIGTERM and SIGINT are only noted; the callable says whether one came. On leaving, what came is
    given to the handler that was there before. A second one goes there at once. Elsewhere than in the main thread,
    where handlers cannot be set, nothing is held."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[tuple[int, Any]] = []
    before = {number: signal.getsignal(number) for number in _WAITING}

    def note(number: int, frame: Any) -> None:
        if came:
            _pass_on(before[signal.Signals(number)], number, frame)
        came.append((number, frame))

    for number in _WAITING:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        number, frame = came[0]
        _pass_on(before[signal.Signals(number)], number, frame)


def _pass_on(handler: Any, number: int, frame: Any) -> None:
    if callable(handler):
        handler(number, frame)
    elif handler != signal.SIG_IGN:
        signal.raise_signal(number)
