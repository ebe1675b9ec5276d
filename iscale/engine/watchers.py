"""Progress for people: a bar per step with rate and time left on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from iscale.engine.progress import Watcher
from iscale.words import plural

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_LINES = 30
RATE_OVER_SECONDS = 300
"""A bar's rate, and with it the time left, is of this long: regions differ, and some take minutes."""


@dataclass
class _Pace:
    """A step that runs: what there is to do, what was there, and when it started and was last spoken of."""

    total: int
    reused: int
    start: float
    said: float
    finished: int = 0


class Silence(Watcher):
    """Says nothing: the watcher of a library call."""


class Printer(Watcher):
    """Says in lines of standard error what is said, and which steps had nothing to do."""

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)

    def reuse(self, step: str) -> None:
        """Say that nothing had to be done."""
        self.say(f"{step}: reused")


class Log(Printer):
    """A line per step when it is over, and one now and then while it runs: for logs and pipes."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._steps: dict[str, _Pace] = {}

    def start(self, step: str, total: int, done: int) -> None:
        """Note the time."""
        now = self._clock()
        self._steps[step] = _Pace(total, done, now, now)

    def advance(self, step: str) -> None:
        """Count a region."""
        self._steps[step].finished += 1

    def reach(self, step: str, regions_done: float) -> None:
        """Print how far the step is, if that was long ago."""
        pace, now = self._steps[step], self._clock()
        if now - pace.said < SECONDS_BETWEEN_LINES:
            return
        pace.said = now
        elapsed = now - pace.start
        left = elapsed * (pace.total - regions_done) / (regions_done - pace.reused)
        percent = int(100 * regions_done / pace.total)
        speed = f"{rate((regions_done - pace.reused) / elapsed)}, " if pace.total > 1 else ""
        self.say(f"{step}: {percent} %, {speed}{clock_time(elapsed)} elapsed, {clock_time(left)} left")

    def stop(self, step: str) -> None:
        """Print what the step took."""
        pace = self._steps.pop(step)
        seconds = self._clock() - pace.start
        if pace.finished + pace.reused == pace.total:
            self.say(f"{step}: {plural(pace.finished, 'region')} in {seconds:.1f} s")
        elif pace.finished:
            self.say(
                f"{step}: stopped after {pace.finished} of {plural(pace.total - pace.reused, 'region')}, "
                f"{seconds:.1f} s"
            )


class Bars(Printer):
    """A bar per step with rate and time left."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def start(self, step: str, total: int, done: int) -> None:
        """Show a bar."""
        from rich import progress
        from rich.console import Console
        from rich.text import Text

        class Rate(progress.ProgressColumn):
            def render(self, task: progress.Task) -> Text:
                return Text(rate(task.speed) if task.speed else "")

        self._progress = progress.Progress(
            progress.TextColumn("{task.description:<14}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TaskProgressColumn(),
            Rate(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            speed_estimate_period=RATE_OVER_SECONDS,
        )
        self._task = self._progress.add_task(step, total=total, completed=done)
        self._progress.start()

    def reach(self, step: str, regions_done: float) -> None:
        """Move the bar."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=regions_done)

    def stop(self, step: str) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def rate(per_second: float) -> str:
    """A rate in the unit in which it is easy to read.

    >>> rate(843.2), rate(0.25), rate(0.01), rate(0.0005)
    ('843/s', '0.25/s', '0.6/min', '1.8/h')
    """
    for unit, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        value = per_second * seconds
        if value >= 0.1 or unit == "h":
            break
    return f"{value:.0f}/{unit}" if value >= 10 else f"{value:.2g}/{unit}"


def clock_time(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock_time(3725.4)
    '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))


def for_terminal() -> Log | Bars:
    """Bars where someone watches, lines elsewhere."""
    return Bars() if sys.stderr.isatty() else Log()


@contextmanager
def counted(watcher: Watcher, step: str, total: int) -> Iterator[Callable[[], None]]:
    """Tell a watcher of a step whose parts are counted by calling what this gives."""
    finished = 0

    def done() -> None:
        nonlocal finished
        finished += 1
        watcher.advance(step)
        watcher.reach(step, finished)

    watcher.start(step, total, 0)
    try:
        yield done
    finally:
        watcher.stop(step)
