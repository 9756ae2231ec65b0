"""A stop waits for the end of the step, a second one does not, and the handlers come back."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vocabgraft.training.checkpoint import Checkpoints
from vocabgraft.training.loop import Schedule, train
from vocabgraft.training.signals import held_signals


@pytest.fixture(autouse=True)
def _as_the_command_line() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    yield
    signal.signal(signal.SIGTERM, before)


def stopped(times: int, passed: list[bool]) -> None:
    with held_signals() as stopping:
        passed.append(stopping())
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGTERM)
        passed.append(stopping())


def test_a_stop_waits() -> None:
    passed: list[bool] = []
    with pytest.raises(SystemExit) as e:
        stopped(1, passed)
    assert (e.value.code, passed) == (143, [False, True])


def test_a_second_stop_does_not_wait() -> None:
    passed: list[bool] = []
    with pytest.raises(SystemExit):
        stopped(2, passed)
    assert passed == [False]


def test_an_interrupt_from_the_keyboard_stays_one() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins deaf to it
    try:
        with pytest.raises(KeyboardInterrupt), held_signals():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_hold_nothing() -> None:
    found = []

    def look() -> None:
        with held_signals() as stopping:
            found.append(stopping())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [False]


def test_a_stopped_training_leaves_a_checkpoint_and_goes_on_from_it(tied_world, tmp_path: Path) -> None:
    schedule = Schedule(("input.new",), 6, lr_new=1e-2)
    whole, cut = tied_world.graft(), tied_world.graft()
    batch_at = tied_world.mixture().batch
    expected = train(whole, batch_at, schedule, micro_batch=4)

    def stop(step: int, loss: float) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        train(cut, batch_at, schedule, micro_batch=4, checkpoints=Checkpoints(tmp_path), on_step=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000004"], "a stop is seen at the end of the step after"
    again = tied_world.graft()
    found = train(again, batch_at, schedule, micro_batch=4, checkpoints=Checkpoints(tmp_path))
    assert found.losses == expected.losses
    assert again.hashes() == whole.hashes()
