"""The driver of ``distributed`` workers: one region on each at a time, whatever becomes of them.

Regions are given to workers by name, one at a time: so it is known which region a worker was at when it died, memory is
one region's, and nothing waits on a worker that hangs. What is lost with a worker is tried again on another; what kills
one worker after the other is given up.
"""

from __future__ import annotations

import contextlib
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from iscale.engine.attempt import Outcome, all_there
from iscale.engine.deaths import Deaths
from iscale.engine.post import Post, attempt_and_tell, open_post
from iscale.engine.progress import Hear
from iscale.engine.step import Step, There
from iscale.engine.waiting import Waiting
from iscale.errors import ClusterError, IscaleError
from iscale.geometry import Region

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


@dataclass
class _Flight:
    """A region that a worker is at."""

    region: Region
    worker: str
    heard: float
    missed: float | None = None


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
        except (OSError, TimeoutError, RuntimeError, ValueError) as error:
            raise self._lost() from error
        if self._client.status != "running":  # what it said is of the past
            raise self._lost()
        return {address: worker["status"] for address, worker in there.items()}

    def map(self, step: Step, regions: Iterable[Region], hear: Hear | None = None) -> Iterator[Outcome]:
        """Keep a region on every worker; outcomes come as tasks finish."""
        flights: dict[str, _Flight] = {}
        told: dict[str, Outcome] = {}

        def heard(region: Region, fraction: float) -> None:
            for flight in list(flights.values()):
                if flight.region == region:
                    flight.heard = time.monotonic()
            if hear is not None:
                hear(region, fraction)

        with open_post(self._client, heard, told) as post:
            yield from self._outcomes(step, Waiting(regions), post, flights, told)

    def _outcomes(
        self, step: Step, waiting: Waiting, post: Post, flights: dict[str, _Flight], told: dict[str, Outcome]
    ) -> Iterator[Outcome]:
        finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        futures: dict[str, Any] = {}
        deaths = Deaths()
        anchors = tuple(path for path in step.outputs if path.exists())
        lonely_since = time.monotonic()
        landed: list[Any] = []
        try:
            while waiting or flights or landed:
                over = [(future, flights.pop(future.key)) for future in landed if future.key in flights]
                there = self._there()
                workers = tuple(address for address, status in there.items() if status == "running")
                for key in _left(flights, there):
                    self._client.cancel([futures.pop(key)], force=True)
                    undone = flights.pop(key).region
                    if not waiting.after_leave(undone, time.monotonic()):
                        yield Outcome(undone, error=TOO_LONG)
                # Before what came of the last ones is recorded: meanwhile the workers are at the next.
                for worker in self._free(workers, flights):
                    region = waiting.take(time.monotonic())
                    if region is None:
                        break
                    future = self._submit(step, region, post, anchors, worker)
                    flights[future.key] = _Flight(region, worker, time.monotonic())
                    futures[future.key] = future
                    future.add_done_callback(finished.put)
                for future, flight in over:
                    outcome = self._outcome(future, futures.pop(future.key), flight, told, anchors, waiting, deaths)
                    if outcome is not None:
                        yield outcome
                lonely_since = time.monotonic() if workers else lonely_since
                self._care(len(workers), len(waiting) + len(flights), lonely_since)
                for key in self._silence(flights):
                    self._client.cancel([futures.pop(key)], force=True)
                    undone = flights.pop(key).region
                    deaths.silent(undone)
                    if not waiting.after_death(undone, time.monotonic()):
                        yield Outcome(undone, error=deaths.why(undone, self._client, SILENCE_S))
                landed = _over(finished) if waiting or flights else []
                if any(future.status != "finished" for future in landed):
                    self._seen = None  # a worker may have died: none is handed a region before it was looked for
        finally:
            if futures and self._client.status == "running":
                self._client.cancel(list(futures.values()), force=True)

    def _submit(self, step: Step, region: Region, post: Post, anchors: tuple[There, ...], worker: str) -> Any:
        key = f"{step.name}-{uuid.uuid4().hex}"
        return self._client.submit(
            attempt_and_tell,
            step.kernel,
            step.context,
            region,
            post,
            anchors,
            key,
            key=key,
            pure=False,
            # On no other: Dask would not give it to one that comes when none is left.
            workers=[worker],
        )

    def _free(self, workers: tuple[str, ...], flights: dict[str, _Flight]) -> list[str]:
        """Workers that have nothing to do; those that could not reach their files only where all are such."""
        now = time.monotonic()
        busy = {flight.worker for flight in flights.values()}
        self._resting = {worker: until for worker, until in self._resting.items() if until > now}
        able = [worker for worker in workers if worker not in self._resting] or list(workers)
        return [worker for worker in able if worker not in busy][: max(0, len(workers) - len(flights))]

    def _outcome(
        self,
        future: Any,
        held: Any,
        flight: _Flight,
        told: dict[str, Outcome],
        anchors: tuple[There, ...],
        waiting: Waiting,
        deaths: Deaths,
    ) -> Outcome | None:
        """What came of a region; None where it is to be tried again."""
        from distributed import KilledWorker

        now, region = time.monotonic(), flight.region
        if future.status == "finished":
            outcome = told.pop(future.key, None) or future.result()
            held.release()
            # Where the files are not there for this process either, waiting for the worker's does not help.
            if outcome.elsewhere and all_there(anchors) and waiting.after_fault(region, now):
                self._resting[flight.worker] = now + REST_S
                return None
            return outcome
        if future.status in ("cancelled", "lost"):
            raise self._lost()
        error = future.exception()
        held.release()
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

    def _silence(self, flights: dict[str, _Flight]) -> list[str]:
        """Regions of which nothing was heard for too long; the workers that are at them are restarted."""
        now = time.monotonic()
        silent = [key for key, flight in flights.items() if now - flight.heard > SILENCE_S]
        if silent:
            at = self._client.processing()
            workers = [worker for worker, keys in at.items() if not set(silent).isdisjoint(keys)]
            # One that left meanwhile is an error to dask, one that nobody restarts too.
            with contextlib.suppress(KeyError, ValueError, OSError, TimeoutError):
                self._client.restart_workers(workers, raise_for_error=False)
        return silent

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


def _left(flights: dict[str, _Flight], there: dict[str, str]) -> list[str]:
    """Regions whose workers have left in good order, at the end of their lifetime for instance."""
    now = time.monotonic()
    for flight in flights.values():
        flight.missed = None if flight.worker in there else flight.missed or now
    return [key for key, flight in flights.items() if flight.missed is not None and now - flight.missed > GONE_S]


def _over(finished: queue.SimpleQueue[Any]) -> list[Any]:
    """Futures that are over, at least one unless none is for a while."""
    futures = []
    with contextlib.suppress(queue.Empty):
        futures.append(finished.get(timeout=LOOK_EVERY_S))
        while True:
            futures.append(finished.get_nowait())
    return futures
