"""A step: a kernel, the regions to run it on, and the fingerprint that tells whether it must run again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from iscale.engine.plan import Plan
from iscale.geometry import Region

Where = Literal["here", "cpu", "gpu"]
"""Who computes a step: the driving process, for what takes no time; any worker; a worker with a card, where there is
one."""

Kernel = Callable[[Any, Region], Any]
"""``kernel(context, region)`` writes the region to the store and returns something small and JSON-able."""


class There(Protocol):
    """A file, or an object of an object store, that may be there."""

    def exists(self) -> bool:
        """Whether it is."""
        ...


def nothing(*_: Any) -> None:
    """Do nothing: a step that needs no preparation or no ending."""


@dataclass(frozen=True)
class Step:
    """One pass over regions.

    Attributes
    ----------
    name
        Unique in a run; the ledger's name.
    kernel, context
        A function at module level, and its small, picklable first argument: paths and numbers, never arrays or models.
    plan
        The regions, and the memory that each will need.
    fingerprint
        What the result depends on.
    outputs
        Files that are there when the step is done; where one is missing, the step is done anew.
    prepare
        Called once, in the driving process, before a step starts anew: makes the empty arrays.
    finish
        Called once, in the driving process, when all regions are done, with what they returned in the plan's order
        of place.
    disk_bytes, files
        Projected upper bounds of what the step leaves on disk.
    note
        What a reader of the plan should know beyond the numbers.
    where
        Who computes it.
    """

    name: str
    kernel: Kernel
    context: Any
    plan: Plan
    fingerprint: str
    outputs: tuple[There, ...] = ()
    prepare: Callable[[], None] = nothing
    finish: Callable[[list[Any]], None] = nothing
    disk_bytes: int = 0
    files: int = 0
    note: str = ""
    where: Where = "cpu"
