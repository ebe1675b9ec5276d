"""Regions that wait for a worker: new ones in order, and those to be tried again, once their time has come."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable

from iscale.geometry import Region

SECONDS_BEFORE = (2.0, 8.0, 20.0, 40.0)
"""Waits before a region is tried again whose node may be to blame: a file system gone for a minute is outlived."""

MOST_LEAVES = 5
"""A region is given up that so many workers left undone, whose time was over or which were sent away."""

MOST_DEATHS = 3
"""A region is given up that was being computed when so many workers died."""


class Waiting:
    """Regions of a step that no worker has, and what happened to them so far.

    Parameters
    ----------
    regions
        The regions to run, in order.
    """

    def __init__(self, regions: Iterable[Region]) -> None:
        self._new = list(regions)[::-1]
        self._later: list[tuple[float, Region]] = []
        self._faults: Counter[Region] = Counter()
        self._deaths: Counter[Region] = Counter()
        self._leaves: Counter[Region] = Counter()

    def __len__(self) -> int:
        return len(self._new) + len(self._later)

    def take(self, now: float) -> Region | None:
        """The next region whose time has come, if there is one."""
        if self._later and self._later[0][0] <= now:
            return heapq.heappop(self._later)[1]
        return self._new.pop() if self._new else None

    def after_fault(self, region: Region, now: float) -> bool:
        """Put back a region whose node may be to blame; False if it has been tried often enough."""
        self._faults[region] += 1
        if self._faults[region] > len(SECONDS_BEFORE):
            return False
        heapq.heappush(self._later, (now + SECONDS_BEFORE[self._faults[region] - 1], region))
        return True

    def after_leave(self, region: Region, now: float) -> bool:
        """Put back a region whose worker left in good order; False if that has happened too often."""
        self._leaves[region] += 1
        if self._leaves[region] >= MOST_LEAVES:
            return False
        heapq.heappush(self._later, (now, region))
        return True

    def after_death(self, region: Region, now: float, deaths: int = 1) -> bool:
        """Put back a region whose worker died; False if that has happened too often."""
        self._deaths[region] += deaths
        if self._deaths[region] >= MOST_DEATHS:
            return False
        heapq.heappush(self._later, (now, region))
        return True
