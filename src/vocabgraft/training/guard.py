"""Watches text that must not be forgotten while a stage trains, and ends the stage where it was last good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vocabgraft.errors import ProofError


@dataclass
class Guard:
    """measure: bits per byte of retained text on the live model. limit: the most it may be. every: steps between looks;
    the end of the training is looked at too. roll_back: go back to the last good look, not end with an error."""

    measure: Callable[[], float]
    limit: float
    every: int
    roll_back: bool = False
    seen: list[tuple[int, float]] = field(default_factory=list)
    """(steps done, bits per byte) of each look."""

    def due(self, done: int, steps: int) -> bool:
        """Whether to look after `done` of `steps` steps."""
        return done % self.every == 0 or done == steps

    def holds(self, done: int) -> bool:
        """Look. False: go back. ProofError where going back is not wanted."""
        found = self.measure()
        self.seen.append((done, round(found, 5)))
        if found <= self.limit:
            return True
        if self.roll_back:
            return False
        raise ProofError(
            f"after {done} steps retained text stands at {found:.4f} bits per byte, training.guard allows "
            f"{self.limit:.4f}: nothing was published. Lower the stage's rates, raise its replay_share, or set "
            "training.guard_then = 'roll back'"
        )
