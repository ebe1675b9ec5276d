"""How far a step is: told by kernels within their regions, summed, and passed on to whoever watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass

from iscale.geometry import Region

Hear = Callable[[Region, float], None]
"""``hear(region, fraction)``: a region is this far, between 0 and 1."""

SECONDS_BETWEEN = 0.5
"""A region is heard of at most this often, and not before it has run for as long."""

ALMOST = 0.99
"""A region counts as no more than this until its outcome is there, whatever its kernel says."""


@dataclass(slots=True)
class _Listener:
    """Who hears of a region, and when it may next."""

    region: Region
    hear: Hear
    due: float


# Of the context, that is of the thread: a worker may run several tasks at a time.
_listener: ContextVar[_Listener | None] = ContextVar("listener", default=None)


def tell(done: float, total: float) -> None:
    """Say how far the region is that runs in this thread: ``done`` of ``total``, in any unit.

    Cheap enough for an inner loop: most calls end after a look at the clock. Other threads that a kernel starts are not
    listened to.
    """
    listener = _listener.get()
    if listener is None:
        return
    now = time.monotonic()
    if now >= listener.due and total > 0:
        listener.due = now + SECONDS_BETWEEN
        listener.hear(listener.region, min(max(float(done / total), 0.0), 1.0))


@contextmanager
def listening(region: Region, hear: Hear | None) -> Iterator[None]:
    """Pass on what a kernel tells of a region to ``hear``, if there is one."""
    token = _listener.set(_Listener(region, hear, time.monotonic() + SECONDS_BETWEEN) if hear else None)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def progress_between(start: float, stop: float) -> Iterator[None]:
    """Let ``tell`` mean the part of the region between two fractions of it; parts may lie within parts."""
    around = copy_context()

    def hear(region: Region, fraction: float) -> None:
        del region
        around.run(tell, start + (stop - start) * fraction, 1.0)

    # The place of the region does not matter: the listener around knows its own.
    with listening(Region(0, 1, 0, 1), hear):
        yield


class Tally:
    """Regions done of a step, those that were ``done`` before and parts of those in flight included; never falls.

    Parts may be heard of from any thread, and after their region is over. ``show`` is called with the tally when it
    rises: from any thread, but one call at a time.
    """

    def __init__(self, done: int, show: Callable[[float], None]) -> None:
        self._done = done
        self._show = show
        self._shown = float(done)
        self._parts: dict[Region, float] = {}
        self._over: set[Region] = set()
        self._closed = False
        self._lock = threading.Lock()

    def hear(self, region: Region, fraction: float) -> None:
        """Note how far a region is; what is late is ignored."""
        with self._lock:
            if not self._closed and region not in self._over:
                self._parts[region] = min(fraction, ALMOST)
                self._rise()

    def over(self, region: Region, *, done: bool) -> None:
        """Count a region as done, or, where it failed, as not begun."""
        with self._lock:
            self._over.add(region)
            self._parts.pop(region, None)
            self._done += done
            self._rise()

    def close(self) -> None:
        """Show no more: when this returns, nobody is being told."""
        with self._lock:
            self._closed = True

    def _rise(self) -> None:
        tally = self._done + sum(self._parts.values())
        if tally > self._shown:
            self._shown = tally
            self._show(tally)


class Watcher:
    """Who is told how steps go. This one passes on what it is told, or says nothing where there is nobody behind it.

    Others override what they have to do with, and call it here too where somebody may be behind them. ``reach`` may
    come from another thread, also while another call runs.
    """

    behind: Watcher | None = None

    def say(self, text: str) -> None:
        """Something for the user to read, in a sentence."""
        if self.behind is not None:
            self.behind.say(text)

    def start(self, step: str, total: int, done: int) -> None:
        """A step starts, with ``done`` of its ``total`` regions there already."""
        if self.behind is not None:
            self.behind.start(step, total, done)

    def advance(self, step: str) -> None:
        """A region is done."""
        if self.behind is not None:
            self.behind.advance(step)

    def fail(self, step: str, region: Region, error: str) -> None:
        """A region is given up; the step goes on with the others. Who is spoken to at all is told."""
        if self.behind is not None:
            self.behind.fail(step, region, error)
        else:
            self.say(f"{step}: {region} failed: {error}")

    def reach(self, step: str, regions_done: float) -> None:
        """So many regions are done, those that were there already and parts of those in flight included.

        Called between ``start`` and ``stop``, with more each time: as kernels `tell` and as regions are done.
        """
        if self.behind is not None:
            self.behind.reach(step, regions_done)

    def stop(self, step: str) -> None:
        """The step is over."""
        if self.behind is not None:
            self.behind.stop(step)

    def reuse(self, step: str) -> None:
        """All regions of a step are there already."""
        if self.behind is not None:
            self.behind.reuse(step)
