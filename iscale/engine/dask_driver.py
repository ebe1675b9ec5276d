"""The driver of ``distributed`` workers: one region on each at a time, whatever becomes of them.

Regions are given to workers by name, one at a time: so it is known which region a worker was at when it died, memory is
one region's, and nothing waits on a worker that hangs. What is lost with a worker is tried again on another; what kills
one worker after the other is given up.
"""

from __future__ import annotations

import contextlib
import importlib.util
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iscale.engine.attempt import Outcome, attempt
from iscale.engine.drivers import Say
from iscale.engine.progress import Hear
from iscale.engine.step import Step
from iscale.engine.waiting import Waiting
from iscale.errors import ClusterError, InputError, IscaleError
from iscale.geometry import Region

LOOK_EVERY_S = 1.0
"""How often workers are looked after while no region finishes."""

REST_S = 30.0
"""A worker that did not reach its files gets no region for so long, where others do."""

SILENCE_S = 1800.0
"""A worker of which nothing is heard for so long, in spite of a region that tells how far it is, is restarted."""

WAIT_FOR_WORKERS_S = 300.0
"""A cluster that this program does not look after may be without workers for so long."""


LookAfter = Callable[[int, int], None]


@dataclass
class _Flight:
    """A region that a worker is at."""

    region: Region
    worker: str
    heard: float


class Post:
    """Sends what a kernel tells from a Dask worker to those who subscribe to a topic."""

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def __call__(self, region: Region, fraction: float) -> None:
        """Hand it to the worker's own connection, which drops it where the scheduler is not there."""
        from distributed import get_worker

        get_worker().log_event(self.topic, [region.y0, region.y1, region.x0, region.x1, fraction])


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
        raises where there will be none. None for a cluster that cares for itself.
    """

    def __init__(self, client: Any, cluster: Any = None, look_after: LookAfter | None = None) -> None:
        self._client = client
        self._cluster = cluster
        self._look_after = look_after
        self._resting: dict[str, float] = {}

    @property
    def workers(self) -> tuple[str, ...]:
        """Addresses of the workers that are there."""
        try:
            return tuple(self._client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, TimeoutError, RuntimeError, ValueError) as error:
            raise self._lost() from error

    def map(self, step: Step, regions: Iterable[Region], hear: Hear | None = None) -> Iterator[Outcome]:
        """Keep a region on every worker; outcomes come as tasks finish."""
        flights: dict[str, _Flight] = {}

        def heard(region: Region, fraction: float) -> None:
            for flight in list(flights.values()):
                if flight.region == region:
                    flight.heard = time.monotonic()
            if hear is not None:
                hear(region, fraction)

        with self._post(heard) as post:
            yield from self._outcomes(step, Waiting(regions), post, flights)

    def _outcomes(self, step: Step, waiting: Waiting, post: Post, flights: dict[str, _Flight]) -> Iterator[Outcome]:
        finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        futures: dict[str, Any] = {}
        lonely_since = time.monotonic()
        try:
            while waiting or flights:
                workers = self.workers
                for worker in self._free(workers, flights):
                    region = waiting.take(time.monotonic())
                    if region is None:
                        break
                    future = self._submit(step, region, post, worker)
                    flights[future.key] = _Flight(region, worker, time.monotonic())
                    futures[future.key] = future
                    future.add_done_callback(finished.put)
                lonely_since = time.monotonic() if workers else lonely_since
                self._care(len(workers), len(waiting) + len(flights), flights, lonely_since)
                with contextlib.suppress(queue.Empty):
                    future = finished.get(timeout=LOOK_EVERY_S)
                    flight = flights.pop(future.key)
                    outcome = self._outcome(future, futures.pop(future.key), flight, step, waiting)
                    if outcome is not None:
                        yield outcome
        finally:
            if futures and self._client.status == "running":
                self._client.cancel(list(futures.values()), force=True)

    def _submit(self, step: Step, region: Region, post: Post, worker: str) -> Any:
        return self._client.submit(
            attempt,
            step.kernel,
            step.context,
            region,
            post,
            key=f"{step.name}-{uuid.uuid4().hex}",
            pure=False,
            workers=[worker],
            allow_other_workers=True,
        )

    def _free(self, workers: tuple[str, ...], flights: dict[str, _Flight]) -> list[str]:
        """Workers that have nothing to do; those that could not reach their files only where all are such."""
        now = time.monotonic()
        busy = {flight.worker for flight in flights.values()}
        self._resting = {worker: until for worker, until in self._resting.items() if until > now}
        able = [worker for worker in workers if worker not in self._resting] or list(workers)
        return [worker for worker in able if worker not in busy][: max(0, len(workers) - len(flights))]

    def _outcome(self, future: Any, held: Any, flight: _Flight, step: Step, waiting: Waiting) -> Outcome | None:
        """What came of a region; None where it is to be tried again."""
        from distributed import KilledWorker

        now, region = time.monotonic(), flight.region
        if future.status == "finished":
            outcome: Outcome = future.result()
            held.release()
            # Where the files are not there for this process either, waiting for the worker's does not help.
            here = all(path.exists() for path in step.outputs)
            if outcome.elsewhere and here and waiting.after_fault(region, now):
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
            if waiting.after_death(region, now, error.allowed_failures + 1):
                return None
            return Outcome(region, error=_deadly(waiting.deaths(region)))
        return Outcome(region, error=f"{type(error).__name__}: {error}")

    def _care(self, workers: int, left: int, flights: dict[str, _Flight], lonely_since: float) -> None:
        """Look after the cluster, and restart workers of which nothing was heard for too long."""
        now = time.monotonic()
        if self._look_after is not None:
            self._look_after(workers, left)
        elif not workers and now - lonely_since > WAIT_FOR_WORKERS_S:
            raise ClusterError(
                f"No worker for {WAIT_FOR_WORKERS_S / 60:.0f} minutes; what is done is kept.",
                "Start workers again (`dask worker ADDRESS --nthreads 1`); the same command continues.",
            )
        silent = [flight for flight in flights.values() if now - flight.heard > SILENCE_S]
        for flight in silent:
            flight.heard = now
        if silent:
            self._client.restart_workers([flight.worker for flight in silent], raise_for_error=False)

    def _lost(self) -> ClusterError:
        return ClusterError(
            "The Dask scheduler is gone; what is done is kept.",
            "Start it again if it was yours (`dask scheduler`); the same command continues.",
        )

    @contextlib.contextmanager
    def _post(self, hear: Hear) -> Iterator[Post]:
        """What tasks send by, and while it is open what it brings is heard, in the client's thread."""
        post = Post(f"iscale-{uuid.uuid4().hex}")

        def deliver(event: tuple[float, list[Any]]) -> None:
            *place, fraction = event[1]
            hear(Region(*place), fraction)

        self._client.subscribe_topic(post.topic, deliver)
        try:
            yield post
        finally:
            if self._client.status == "running":
                self._client.unsubscribe_topic(post.topic)

    def close(self) -> None:
        """Disconnect, and stop the workers started here."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def _deadly(deaths: int) -> str:
    return (
        f"{deaths} workers died while they computed it: killed from outside, or for more memory than they may use "
        "(their logs, or those of the batch system, tell)"
    )


def remote_driver(where: str, say: Say) -> DaskDriver:
    """Connect to a scheduler that runs.

    Parameters
    ----------
    where
        Its address (``tcp://...``), or the scheduler file (``.json``) that it wrote.

    Raises
    ------
    InputError
        If nobody answers there, there are no workers, or one runs several tasks at a time.
    """
    client = _connect(where)
    _tell(client, len(client.scheduler_info(n_workers=-1)["workers"]), say)
    return DaskDriver(client)


def remote_workers(where: str) -> list[int]:
    """Bytes of memory that each worker of a scheduler may use; 0 for no limit.

    Raises
    ------
    InputError
        As `remote_driver`.
    """
    client = _connect(where)
    try:
        return [worker["memory_limit"] or 0 for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    finally:
        client.close()


def _connect(where: str) -> Any:
    from distributed import Client

    try:
        if where.endswith(".json"):
            client = Client(scheduler_file=str(Path(where).expanduser()), timeout="10s")
        else:
            client = Client(where, timeout="10s")
    except (OSError, ValueError) as error:
        raise InputError(
            f"--dask {where}: no scheduler answers there ({error}).",
            "Start one (`dask scheduler`, `dask worker ADDRESS --nthreads 1`) or use --dask local.",
        ) from error
    workers = client.scheduler_info(n_workers=-1)["workers"]
    threads = max((worker["nthreads"] for worker in workers.values()), default=0)
    if threads == 1:
        return client
    client.close()
    if not workers:
        raise InputError(
            f"--dask {where}: the scheduler has no workers.", "Start some: `dask worker ADDRESS --nthreads 1`."
        )
    raise InputError(
        f"--dask {where}: a worker has {threads} threads: it would compute {threads} regions at a time, and take "
        f"{threads} times the memory that was planned.",
        "Start workers with `--nthreads 1`; their kernels use more cores themselves (OMP_NUM_THREADS).",
    )


class LocalDriver:
    """Workers on this machine, started when the first region is to be computed.

    Parameters
    ----------
    workers, memory_bytes
        Processes (0: one per core), and the budget of each.
    say
        Who is told of them.
    """

    def __init__(self, workers: int, memory_bytes: int, say: Say) -> None:
        self._wanted = (workers, memory_bytes)
        self._say = say
        self._started: DaskDriver | None = None

    @property
    def started(self) -> DaskDriver:
        """The driver of the workers, which run from when they are first asked for."""
        if self._started is None:
            from distributed import Client

            from iscale.engine.local_cluster import start

            cluster = start(*self._wanted)
            client = Client(cluster)
            _tell(client, len(cluster.workers), self._say)
            self._started = DaskDriver(client, cluster)
        return self._started

    def map(self, step: Step, regions: Iterable[Region], hear: Hear | None = None) -> Iterator[Outcome]:
        """Run the regions on the workers."""
        return self.started.map(step, regions, hear)

    def close(self) -> None:
        """Stop the workers, if there are any."""
        if self._started is not None:
            self._started.close()


def _tell(client: Any, workers: int, say: Say) -> None:
    say(f"{workers} Dask worker{'s' if workers > 1 else ''}; {dashboard(client)}")


def dashboard(client: Any) -> str:
    """Where the scheduler's dashboard is, in words."""
    if importlib.util.find_spec("bokeh") is None:
        return "no dashboard, for want of the package bokeh"
    return f"dashboard: {client.dashboard_link}"
