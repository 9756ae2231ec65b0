"""What a person sees while a step runs: news, and a bar for anything longer than two seconds.

Everything goes to standard error, so that `--json` on standard output stays clean. Without a terminal a line is
written now and then instead of a bar.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_QUIET_SECONDS = 2.0
_LOG_SECONDS = 20.0


class ConsoleReporter:
    """Reports on a terminal, or as plain lines where there is none."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self.started = time.monotonic()

    def say(self, text: str) -> None:
        """One line, with the time since the start."""
        seconds = int(time.monotonic() - self.started)
        stamp = f"[dim]{seconds // 60:3d}:{seconds % 60:02d}[/dim]"
        bold = text[:2].isdigit() and text[2:3] == "-"
        # A model's answer may hold line ends, terminal codes, and what rich takes for markup.
        shown = escape("".join(c if c.isprintable() else " " for c in text))
        self.console.print(f"{stamp} [bold]{shown}[/bold]" if bold else f"{stamp}   {shown}", markup=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar on a terminal, occasional lines elsewhere."""
        if self.console.is_terminal and not self.console.quiet:
            with self._rich_bar(label, total) as advance:
                yield advance
        else:
            yield self._lines(label, total)

    @contextmanager
    def _rich_bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        columns = (
            TextColumn("       {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(label, total=total)
            yield lambda n: progress.advance(task, n)

    def _lines(self, label: str, total: int) -> Callable[[int], None]:
        began = last = time.monotonic()
        done = 0

        def advance(n: int) -> None:
            nonlocal done, last
            done += n
            now = time.monotonic()
            if now - began > _QUIET_SECONDS and now - last > _LOG_SECONDS:
                last = now
                self.say(f"{label}: {done:,} of {total:,}")

        return advance
