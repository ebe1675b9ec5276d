"""Drivers: the same kernels over the same regions, in this process or on a Dask cluster."""

from __future__ import annotations

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from iscale.engine.memory import give_back, peak_bytes
from iscale.engine.progress import Hear, listening
from iscale.engine.step import Kernel
from iscale.errors import InputError, IscaleError, StoreError
from iscale.geometry import Region

IN_FLIGHT_PER_WORKER = 2
"""Tasks given to a worker at a time: one runs, one waits."""


@dataclass(frozen=True)
class Outcome:
    """What became of one region.

    Attributes
    ----------
    region, value
        The region, and what the kernel returned.
    seconds, peak_bytes
        Time of the task, and the peak resident memory of its worker so far.
    error
        Empty, or why the region failed.
    """

    region: Region
    value: Any = None
    seconds: float = 0.0
    peak_bytes: int = 0
    error: str = ""


class Driver(Protocol):
    """Runs a kernel over regions and yields outcomes as they come."""

    name: str
    workers: int

    def map(
        self, kernel: Kernel, context: Any, regions: Iterable[Region], hear: Hear | None = None
    ) -> Iterator[Outcome]:
        """Run every region; an ``IscaleError`` of a kernel stops all, anything else fails that region only.

        ``hear`` is called with what kernels `tell`, from any thread, and perhaps late.
        """
        ...

    def close(self) -> None:
        """Let go of workers that the driver started."""
        ...


def attempt(kernel: Kernel, context: Any, region: Region, hear: Hear | None = None) -> Outcome:
    """Run one region here; errors of the disk are told apart from errors of the region."""
    start = time.perf_counter()
    try:
        with listening(region, hear):
            value = kernel(context, region)
    except IscaleError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES):
            raise StoreError(
                f"Cannot write {error.filename or 'to the output folder'}: {os.strerror(error.errno)}.",
                "Make room or choose another folder with --out; what is done is kept, the same command continues.",
            ) from error
        return Outcome(region, error=f"{type(error).__name__}: {error}")
    except Exception as error:
        return Outcome(region, error=f"{type(error).__name__}: {error}")
    finally:
        give_back()
    return Outcome(region, value, time.perf_counter() - start, peak_bytes())


class SerialDriver:
    """One region after the other, in this process."""

    name = "serial"
    workers = 1

    def map(
        self, kernel: Kernel, context: Any, regions: Iterable[Region], hear: Hear | None = None
    ) -> Iterator[Outcome]:
        """Run the regions in order."""
        for region in regions:
            yield attempt(kernel, context, region, hear)

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass(frozen=True)
class Post:
    """Sends what a kernel tells from a Dask worker to those who subscribe to a topic."""

    topic: str

    def __call__(self, region: Region, fraction: float) -> None:
        """Hand it to the worker's own connection, which drops it where the scheduler is not there."""
        from distributed import get_worker

        get_worker().log_event(self.topic, [region.y0, region.y1, region.x0, region.x1, fraction])


class DaskDriver:
    """One task per region on the workers of a ``distributed`` cluster.

    Parameters
    ----------
    where
        ``"local"``, or the address of a scheduler that runs.
    workers
        Worker processes to start for ``"local"``; 0 for one per core.
    memory_bytes
        Budget of each worker started here.
    """

    name = "dask"

    def __init__(self, where: str, workers: int, memory_bytes: int) -> None:
        from distributed import Client

        self._cluster: Any = None
        if where == "local":
            self._cluster = _local_cluster(workers, memory_bytes)
            self._client = Client(self._cluster)
        else:
            try:
                self._client = Client(where, timeout="10s")
            except (OSError, ValueError) as error:
                raise InputError(
                    f"--dask {where}: no scheduler answers there ({error}).",
                    "Start one (`dask scheduler`, `dask worker ADDRESS`) or use --dask local.",
                ) from error
        self.workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
        if not self.workers:
            self.close()
            raise InputError(f"--dask {where}: the scheduler has no workers.", "Start some: `dask worker ADDRESS`.")

    def map(
        self, kernel: Kernel, context: Any, regions: Iterable[Region], hear: Hear | None = None
    ) -> Iterator[Outcome]:
        """Keep a bounded number of regions in flight; outcomes come as tasks finish."""
        with self._post(hear) as post:
            yield from self._outcomes(kernel, context, iter(regions), post)

    @contextlib.contextmanager
    def _post(self, hear: Hear | None) -> Iterator[Post | None]:
        """What tasks send by, and while it is open what it brings is heard, in the client's thread."""
        if hear is None:
            yield None
            return
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

    def _outcomes(
        self, kernel: Kernel, context: Any, waiting: Iterator[Region], post: Post | None
    ) -> Iterator[Outcome]:
        from distributed import as_completed

        pool = as_completed(with_results=False, raise_errors=False)
        in_flight: dict[str, Region] = {}

        def submit_next() -> None:
            region = next(waiting, None)
            if region is not None:
                future = self._client.submit(attempt, kernel, context, region, post, pure=False, retries=2)
                in_flight[future.key] = region
                pool.add(future)

        for _ in range(IN_FLIGHT_PER_WORKER * self.workers):
            submit_next()
        while in_flight:
            future = next(pool)
            region = in_flight.pop(future.key)
            if future.status == "finished":
                yield future.result()
            else:
                error = future.exception()
                if isinstance(error, IscaleError):
                    raise error
                yield Outcome(region, error=f"{type(error).__name__}: {error}")
            future.release()
            submit_next()

    def close(self) -> None:
        """Disconnect, and stop the workers started here."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def _local_cluster(workers: int, memory_bytes: int) -> Any:
    import dask
    from distributed import LocalCluster

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = workers or cores
    threads = str(max(1, cores // workers))
    # Threads of a worker are its kernels' (BLAS, torch); dask itself runs one task at a time on each.
    environment = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "ZARR_THREADING__MAX_WORKERS": threads,
    }
    settings = {"distributed.nanny.pre-spawn-environ": environment, "distributed.worker.daemon": True}
    with dask.config.set(settings):
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=memory_bytes,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            silence_logs=40,
        )


@contextlib.contextmanager
def open_driver(dask: str | None, workers: int, memory_bytes: int) -> Iterator[Driver]:
    """Open the driver of the ``--dask`` option and close it in the end."""
    driver: Driver = DaskDriver(dask, workers, memory_bytes) if dask else SerialDriver()
    try:
        yield driver
    finally:
        driver.close()
