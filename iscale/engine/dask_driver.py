"""The driver of ``distributed`` workers: one region on each at a time, whatever becomes of them."""

from __future__ import annotations

import contextlib
import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from iscale.engine.assignments import Flight, Flights, open_post
from iscale.engine.attempt import Outcome, all_there
from iscale.engine.plan import format_bytes
from iscale.engine.progress import Hear
from iscale.engine.step import Step, There
from iscale.errors import ClusterError, IscaleError
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


LOOK_EVERY_S = 1.0
"""How often workers are looked after while no region finishes."""

REST_S = 30.0
"""A worker that did not reach its files gets no region for so long, where others do."""

SILENCE_S = 1800.0
"""A worker of which nothing is heard for so long, in spite of a region that tells how far it is, is restarted."""

WAIT_FOR_WORKERS_S = 300.0
"""A cluster whose workers do not wait in a queue may be without any for so long."""

GONE_S = 3.0
"""A worker that has been away for so long has left; had it died, Dask would have said so at once."""

LOST_AFTER = "1 day"
"""What dask waits before it gives up a worker of its own cluster that is not there: this program looks after them. Dask
would look once, 15 s after a worker died, and end for good the one that its nanny is only just starting again."""
TOO_LONG = (
    "every worker that computed it left before it was done: it takes longer than their time (walltime, --lifetime); "
    "give them more, or run with smaller regions (--region-shards)"
)


LookAfter = Callable[[int, int], bool]


class DaskDriver:
    """One task per region on the workers of a ``distributed`` cluster, one region per worker at a time.

    Parameters
    ----------
    client
        Connected to the scheduler.
    cluster
        Closed with the driver; None if somebody else's.
    look_after
        Called now and then with the number of workers and of regions still to do, to start, replace or end workers;
        says whether to wait for workers however long, and raises where there will be none. None for a cluster that
        cares for itself.
    """

    def __init__(self, client: Any, cluster: Any = None, look_after: LookAfter | None = None) -> None:
        self._client = client
        self._cluster = cluster
        self._look_after = look_after
        self._resting: dict[str, float] = {}
        self._seen: tuple[float, dict[str, str]] | None = None
        self._settings = contextlib.ExitStack()
        if cluster is not None:
            import dask

            self._settings.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": LOST_AFTER}))

    @property
    def workers(self) -> tuple[str, ...]:
        """Addresses of the workers that are there and not about to leave."""
        return tuple(address for address, status in self._there().items() if status == "running")

    def _there(self) -> dict[str, str]:
        """Status of every worker that the scheduler knows, by address; asked for once in a while."""
        now = time.monotonic()
        if self._seen is None or now - self._seen[0] > LOOK_EVERY_S:
            self._seen = now, self._ask()
        return self._seen[1]

    def _ask(self) -> dict[str, str]:
        try:
            there = self._client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, TimeoutError, RuntimeError, ValueError, KeyError) as error:
            raise self._lost() from error
        if self._client.status != "running":  # what it said is of the past
            raise self._lost()
        return {address: worker["status"] for address, worker in there.items()}

    def map(self, step: Step, regions: Iterable[Region], hear: Hear | None = None) -> Iterator[Outcome]:
        """Keep a region on every worker; outcomes come as tasks finish."""
        anchors = tuple(path for path in step.outputs if path.exists())
        flights = Flights(self._client, step, anchors)

        def heard(region: Region, fraction: float) -> None:
            flights.hear(region)
            if hear is not None:
                hear(region, fraction)

        with open_post(self._client, heard, flights.keep) as flights.post:
            try:
                yield from self._outcomes(Waiting(regions), flights, anchors)
            finally:
                flights.cancel()

    def _outcomes(self, waiting: Waiting, flights: Flights, anchors: tuple[There, ...]) -> Iterator[Outcome]:
        deaths = Deaths()
        lonely_since = time.monotonic()
        landed: list[Flight] = []
        while waiting or flights or landed:
            there = self._there()
            workers = tuple(address for address, status in there.items() if status == "running")
            for region in flights.left(there, GONE_S):
                if not waiting.after_leave(region, time.monotonic()):
                    yield Outcome(region, error=TOO_LONG)
            # Before what came of the last ones is recorded: meanwhile the workers are at the next.
            for worker in self._free(workers, flights):
                if (next_one := waiting.take(time.monotonic())) is None:
                    break
                flights.start(next_one, worker)
            for flight in landed:
                if outcome := self._outcome(flight, flights, anchors, waiting, deaths):
                    yield outcome
            lonely_since = time.monotonic() if workers else lonely_since
            self._care(len(workers), len(waiting) + len(flights), lonely_since)
            for region in flights.silent(SILENCE_S):
                deaths.silent(region)
                if not waiting.after_death(region, time.monotonic()):
                    yield Outcome(region, error=deaths.why(region, self._client, SILENCE_S))
            landed = flights.landed(LOOK_EVERY_S) if waiting or flights else []
            if any(flight.future.status != "finished" for flight in landed):
                self._seen = None  # a worker may have died: none is handed a region before it was looked for

    def _free(self, workers: tuple[str, ...], flights: Flights) -> list[str]:
        """Workers that have nothing to do; those that could not reach their files only where all are such."""
        now, busy = time.monotonic(), flights.busy
        self._resting = {worker: until for worker, until in self._resting.items() if until > now}
        able = [worker for worker in workers if worker not in self._resting] or list(workers)
        return [worker for worker in able if worker not in busy][: max(0, len(workers) - len(flights))]

    def _outcome(
        self, flight: Flight, flights: Flights, anchors: tuple[There, ...], waiting: Waiting, deaths: Deaths
    ) -> Outcome | None:
        """What came of a region; None where it is to be tried again."""
        from distributed import KilledWorker

        now, region, future = time.monotonic(), flight.region, flight.future
        if future.status == "finished":
            outcome = flights.outcome(flight)
            # Where the files are not there for this process either, waiting for the worker's does not help.
            if outcome.elsewhere and all_there(anchors) and waiting.after_fault(region, now):
                self._resting[flight.worker] = now + REST_S
                return None
            return outcome
        if future.status in ("cancelled", "lost"):
            raise self._lost()
        error = future.exception()
        future.release()
        if isinstance(error, IscaleError):
            raise error
        if isinstance(error, KilledWorker):
            if waiting.after_death(region, now, deaths.killed(region, error)):
                return None
            return Outcome(region, error=deaths.why(region, self._client, SILENCE_S))
        return Outcome(region, error=f"{type(error).__name__}: {error}")

    def _care(self, workers: int, left: int, lonely_since: float) -> None:
        """Look after the cluster."""
        if self._look_after is not None and self._look_after(workers, left):
            return
        if not workers and time.monotonic() - lonely_since > WAIT_FOR_WORKERS_S:
            raise ClusterError(
                f"No worker for {WAIT_FOR_WORKERS_S / 60:.0f} minutes; what is done is kept.",
                "Start them again if they were yours (`dask worker ADDRESS --nthreads 1`); the same command continues.",
            )

    def _lost(self) -> ClusterError:
        return ClusterError(
            "The Dask scheduler is gone; what is done is kept.",
            "Start it again if it was yours (`dask scheduler`); the same command continues.",
        )

    def close(self) -> None:
        """Disconnect, and stop the workers started here."""
        with self._settings:
            self._client.close()
            if self._cluster is not None:
                self._cluster.close()
