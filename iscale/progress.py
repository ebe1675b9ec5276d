"""Progress for people: a bar per step with rate and time left on a terminal, one line per step elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Silence:
    """Says nothing: the watcher of a library call."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def start(self, step: str, total: int, done: int) -> None:
        """Say nothing."""

    def advance(self, step: str) -> None:
        """Say nothing."""

    def stop(self, step: str) -> None:
        """Say nothing."""

    def reuse(self, step: str) -> None:
        """Say nothing."""


class Log(Silence):
    """One line per step, for logs and pipes."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._done: dict[str, int] = {}

    def say(self, text: str) -> None:
        """Print a line to standard error."""
        print(text, file=sys.stderr, flush=True)

    def start(self, step: str, total: int, done: int) -> None:
        """Note the time."""
        self._started[step] = time.perf_counter()
        self._done[step] = 0

    def advance(self, step: str) -> None:
        """Count a region."""
        self._done[step] += 1

    def stop(self, step: str) -> None:
        """Print what the step took."""
        seconds = time.perf_counter() - self._started.pop(step)
        self.say(f"{step}: {self._done[step]} regions in {seconds:.1f} s")

    def reuse(self, step: str) -> None:
        """Say that nothing had to be done."""
        self.say(f"{step}: reused")


class Bars(Silence):
    """A bar per step with rate and time left."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        print(text, file=sys.stderr, flush=True)

    def reuse(self, step: str) -> None:
        """Say that nothing had to be done."""
        self.say(f"{step}: reused")

    def start(self, step: str, total: int, done: int) -> None:
        """Show a bar."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(f"{task.speed:.2g}/s" if task.speed else "")

        self._progress = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(step, total=total, completed=done)
        self._progress.start()

    def advance(self, step: str) -> None:
        """Move the bar."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task)

    def stop(self, step: str) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def for_terminal() -> Log | Bars:
    """Bars where someone watches, lines elsewhere."""
    return Bars() if sys.stderr.isatty() else Log()
