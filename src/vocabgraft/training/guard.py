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
    looks: list[tuple[int, float]] = field(default_factory=list)
    """(steps done, bits per byte) of each look."""

    def due(self, done: int, steps: int) -> bool:
        """Whether to look after `done` of `steps` steps."""
        return done % self.every == 0 or done == steps

    def holds(self, done: int) -> bool:
        """Look."""
        self.looks.append((done, round(self.measure(), 5)))
        return self.looks[-1][1] <= self.limit

    def last_good(self) -> int:
        """Steps done at the last look that was good; ProofError where there is none, or going back is not wanted."""
        good = [done for done, bits in self.looks if bits <= self.limit]
        if self.roll_back and good:
            return good[-1]
        done, bits = self.looks[-1]
        cure = "raise its replay_share" if self.roll_back else "raise its replay_share, or watch.then = 'roll back'"
        raise ProofError(
            f"after {done} steps retained text stands at {bits:.4f} bits per byte, watch.limit allows "
            f"{self.limit:.4f}: nothing was published. Lower the stage's lr, or {cure}"
        )
