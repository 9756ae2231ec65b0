"""Processes that benchmarks start as forks, and kill."""

from __future__ import annotations

import os
import time


def ended(child: int, seconds: float) -> int | None:
    """Exit status of a fork that ended within the time, else None."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None
