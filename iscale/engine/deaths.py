"""Workers that died at a region, and what of, as far as can be known."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from iscale.engine.plan import format_bytes
from iscale.geometry import Region

OUT_OF_MEMORY = "worker-restart-memory"
"""Topic under which Dask's nannies tell of workers that they ended."""


class Deaths:
    """Workers that died at regions."""

    def __init__(self) -> None:
        self._killed: defaultdict[Region, list[str]] = defaultdict(list)
        self._silent: defaultdict[Region, int] = defaultdict(int)
        self._limit = 0

    def killed(self, region: Region, error: Any) -> int:
        """Note what a ``KilledWorker`` says; how many workers that were."""
        # A scheduler that somebody else started tries on other workers by itself before it says so.
        times = int(error.allowed_failures) + 1
        self._killed[region] += [error.last_worker.address] * times
        self._limit = error.last_worker.memory_limit or 0
        return times

    def silent(self, region: Region) -> None:
        """Note one that was restarted, as nothing was heard of it."""
        self._silent[region] += 1

    def why(self, region: Region, client: Any, silence_s: float) -> str:
        """Why a region is given up."""
        too_large = {event["worker"] for _, event in client.get_events(OUT_OF_MEMORY)}
        killed, silent = self._killed[region], self._silent[region]
        large = sum(worker in too_large for worker in killed)
        causes = {
            f"took more than the {format_bytes(self._limit)} of memory that a worker may use (--memory)": large,
            f"were restarted, as nothing was heard of them for {silence_s:.0f} s": silent,
            "were killed from outside, or for the memory of their node (its logs tell)": len(killed) - large,
        }
        told = "; ".join(f"{count} {cause}" for cause, count in causes.items() if count)
        return f"{len(killed) + silent} workers died while they computed it: {told}"
