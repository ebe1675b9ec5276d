"""Drivers: the same kernels over the same regions, in this process or on workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from iscale.engine.attempt import Outcome, attempt
from iscale.engine.progress import Hear
from iscale.engine.step import Step
from iscale.geometry import Region

Say = Callable[[str], None]
"""Tells the user something in a sentence."""


class Driver(Protocol):
    """Runs a step's kernel over regions and yields outcomes as they come."""

    def map(self, step: Step, regions: Iterable[Region], hear: Hear | None = None) -> Iterator[Outcome]:
        """Run every region; an ``IscaleError`` of a kernel stops all, anything else fails that region only.

        ``hear`` is called with what kernels `tell`, from any thread, and perhaps late.
        """
        ...

    def close(self) -> None:
        """Let go of workers that the driver started."""
        ...


class SerialDriver:
    """One region after the other, in this process."""

    def map(self, step: Step, regions: Iterable[Region], hear: Hear | None = None) -> Iterator[Outcome]:
        """Run the regions in order."""
        for region in regions:
            yield attempt(step.kernel, step.context, region, hear)

    def close(self) -> None:
        """Nothing to let go of."""
