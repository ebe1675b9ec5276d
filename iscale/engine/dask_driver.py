"""The driver of ``distributed`` workers: one region on each at a time, whatever becomes of them.

Who is alive is answered here: the scheduler is asked which workers are there, Dask's errors tell who died, and what is
silent for too long is restarted. What becomes of their regions is the queue's (`iscale.engine.assignments`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from iscale.engine.assignments import Assignment, Assignments, RegionQueue, messages_to
from iscale.engine.drivers import Outcome, all_there
from iscale.engine.progress import Hear
from iscale.engine.step import Step, There
from iscale.errors import ClusterError, IscaleError
from iscale.geometry import Region

OUT_OF_MEMORY = "worker-restart-memory"
"""Topic under which Dask's nannies tell of workers that they ended."""


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
"""Called now and then with the number of workers and of regions still to do, to start, replace or end workers; says
whether to wait for workers however long, and raises where there will be none."""


class DaskDriver:
    """One task per region on the workers of a ``distributed`` cluster, one region per worker at a time.

    The cluster is closed with the driver; it is None where it is somebody else's. ``look_after`` is None where it cares
    for itself.
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
        assigned = Assignments(self._client, step, anchors)

        def heard(region: Region, fraction: float) -> None:
            assigned.note_heard(region)
            if hear is not None:
                hear(region, fraction)

        with messages_to(self._client, heard, assigned.keep_outcome) as assigned.messages:
            try:
                yield from self._outcomes(RegionQueue(regions), assigned, anchors)
            finally:
                assigned.recall_all()

    def _outcomes(self, queue: RegionQueue, assigned: Assignments, anchors: tuple[There, ...]) -> Iterator[Outcome]:
        lonely_since = time.monotonic()
        over: list[Assignment] = []
        while queue or assigned or over:
            there = self._there()
            workers = tuple(address for address, status in there.items() if status == "running")
            for region in assigned.recall_left(there, GONE_S):
                if not queue.after_leave(region, time.monotonic()):
                    yield Outcome(region, error=TOO_LONG)
            # Before what came of the last ones is recorded: meanwhile the workers are at the next.
            for worker in self._free(workers, assigned):
                if (next_one := queue.take(time.monotonic())) is None:
                    break
                assigned.start(next_one, worker)
            for assignment in over:
                if outcome := self._outcome(assignment, assigned, anchors, queue):
                    yield outcome
            lonely_since = time.monotonic() if workers else lonely_since
            self._care(len(workers), len(queue) + len(assigned), lonely_since)
            for region in assigned.recall_silent(SILENCE_S):
                if not queue.after_silence(region, time.monotonic()):
                    yield self._given_up(region, queue)
            over = assigned.take_over(LOOK_EVERY_S) if queue or assigned else []
            if any(assignment.future.status != "finished" for assignment in over):
                self._seen = None  # a worker may have died: none is handed a region before it was looked for

    def _free(self, workers: tuple[str, ...], assigned: Assignments) -> list[str]:
        """Workers that have nothing to do; those that could not reach their files only where all are such."""
        now, busy = time.monotonic(), assigned.busy
        self._resting = {worker: until for worker, until in self._resting.items() if until > now}
        able = [worker for worker in workers if worker not in self._resting] or list(workers)
        return [worker for worker in able if worker not in busy][: max(0, len(workers) - len(assigned))]

    def _outcome(
        self, assignment: Assignment, assigned: Assignments, anchors: tuple[There, ...], queue: RegionQueue
    ) -> Outcome | None:
        """What came of a region; None where it is to be tried again."""
        from distributed import KilledWorker

        now, region, future = time.monotonic(), assignment.region, assignment.future
        if future.status == "finished":
            outcome = assigned.outcome_of(assignment)
            # Where the files are not there for this process either, waiting for the worker's does not help.
            if outcome.elsewhere and all_there(anchors) and queue.after_fault(region, now):
                self._resting[assignment.worker] = now + REST_S
                return None
            return outcome
        if future.status in ("cancelled", "lost"):
            raise self._lost()
        error = future.exception()
        future.release()
        if isinstance(error, IscaleError):
            raise error
        if isinstance(error, KilledWorker):
            return None if queue.after_kill(region, now, error) else self._given_up(region, queue)
        return Outcome(region, error=f"{type(error).__name__}: {error}")

    def _given_up(self, region: Region, queue: RegionQueue) -> Outcome:
        """The outcome of a region at which too many workers died."""
        ended_for_memory = {event["worker"] for _, event in self._client.get_events(OUT_OF_MEMORY)}
        return Outcome(region, error=queue.why_workers_died(region, ended_for_memory, SILENCE_S))

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
