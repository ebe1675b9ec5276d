"""Progress of work that has parts: what is told within a part goes to its share of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context

from iscale.engine.progress import listening, tell
from iscale.geometry import Region


@contextmanager
def part(start: float, stop: float) -> Iterator[None]:
    """Let ``tell`` mean this part of the region, between two fractions of it; parts may lie within parts."""
    around = copy_context()

    def hear(region: Region, fraction: float) -> None:
        del region
        around.run(tell, start + (stop - start) * fraction, 1.0)

    # The place of the region does not matter: the listener around knows its own.
    with listening(Region(0, 1, 0, 1), hear):
        yield
