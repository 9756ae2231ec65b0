"""Text that must not be forgotten is watched while a stage trains: it ends with an error, or where it was last good."""

from __future__ import annotations

from pathlib import Path

import pytest

from vocabgraft.errors import ProofError
from vocabgraft.training.checkpoint import Checkpoints
from vocabgraft.training.guard import Guard
from vocabgraft.training.loop import Schedule, train

STEPS, EVERY = 6, 2


def watched(world, bits: list[float], *, roll_back: bool, folder: Path, die_at: int | None = None):
    """Train with a guard that sees `bits`, one a look; (graft, outcome, guard)."""
    graft, left = world.graft(), iter(bits)
    guard = Guard(lambda: next(left), limit=1.0, every=EVERY, roll_back=roll_back)

    def on_step(step: int, loss: float) -> None:
        if step == die_at:
            raise KeyboardInterrupt

    schedule = Schedule(("input.new",), STEPS, lr_new=1e-2)
    checkpoints = Checkpoints(folder, seconds=1e9)
    batch_at = world.mixture().batch
    done = train(graft, batch_at, schedule, micro_batch=4, checkpoints=checkpoints, guard=guard, on_step=on_step)
    return graft, done, guard


def test_while_it_holds_nothing_is_different(tied_world, tmp_path: Path) -> None:
    graft, done, guard = watched(tied_world, [0.9, 0.95, 1.0], roll_back=True, folder=tmp_path)
    free = tied_world.graft()
    expected = train(free, tied_world.mixture().batch, Schedule(("input.new",), STEPS, lr_new=1e-2), micro_batch=4)
    assert (done.steps, done.losses, done.optimizer) == (STEPS, expected.losses, expected.optimizer)
    assert graft.hashes() == free.hashes()
    assert guard.looks == [(2, 0.9), (4, 0.95), (6, 1.0)]


@pytest.mark.parametrize("bad_at", [4, 6])
def test_it_goes_back_to_where_it_was_last_good(tied_world, tmp_path: Path, bad_at: int) -> None:
    looks = [0.9, 1.2] if bad_at == 4 else [0.9, 0.95, 1.0001]
    graft, done, guard = watched(tied_world, looks, roll_back=True, folder=tmp_path)
    good = bad_at - EVERY
    unwatched, _, _ = watched(tied_world, [0.9] * 3, roll_back=True, folder=tmp_path / "other")
    assert (done.steps, len(done.losses)) == (good, good)
    assert guard.looks[-1][0] == bad_at
    assert graft.hashes()["input.new"] != unwatched.hashes()["input.new"]
    again = tied_world.graft()
    rows = Checkpoints(tmp_path).at(good).tensors
    again.rows.load({"input.new": rows["value/new"]})
    assert graft.hashes() == again.hashes()


def test_killed_before_it_went_back_it_goes_back_the_same(tied_world, tmp_path: Path) -> None:
    expected, done, _ = watched(tied_world, [0.9, 0.95, 1.2], roll_back=True, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        watched(tied_world, [0.9, 0.95], roll_back=True, folder=tmp_path / "cut", die_at=4)
    graft, again, guard = watched(tied_world, [1.2], roll_back=True, folder=tmp_path / "cut")
    assert (again.steps, again.losses, again.optimizer) == (done.steps, done.losses, done.optimizer)
    assert graft.hashes() == expected.hashes()
    assert [at for at, _ in guard.looks] == [2, 4, 6]


def test_the_last_good_point_outlives_later_checkpoints(tied_world, tmp_path: Path) -> None:
    graft, left = tied_world.graft(), iter([0.9, 1.2])
    guard = Guard(lambda: next(left), limit=1.0, every=5, roll_back=True)
    schedule = Schedule(("input.new",), 12, lr_new=1e-2)
    checkpoints = Checkpoints(tmp_path, seconds=-1)  # one after every step
    done = train(graft, tied_world.mixture().batch, schedule, micro_batch=4, checkpoints=checkpoints, guard=guard)
    assert done.steps == 5


@pytest.mark.parametrize("roll_back", [False, True])
def test_without_a_good_look_nothing_is_published(tied_world, tmp_path: Path, roll_back: bool) -> None:
    with pytest.raises(ProofError, match=r"after 2 steps retained text stands at 1\.2000 .*allows 1\.0000"):
        watched(tied_world, [1.2], roll_back=roll_back, folder=tmp_path)


def test_to_stop_is_not_to_go_back(tied_world, tmp_path: Path) -> None:
    with pytest.raises(ProofError, match=r"after 4 steps .*watch\.then = 'roll back'"):
        watched(tied_world, [0.9, 1.2], roll_back=False, folder=tmp_path)
