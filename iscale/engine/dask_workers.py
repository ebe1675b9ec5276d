"""Workers on this machine, workers that run already, and the settings that all Dask workers of a run share."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from iscale.engine.dask_driver import DaskDriver
from iscale.engine.drivers import Outcome, Say
from iscale.engine.machine import available_cores
from iscale.engine.progress import Hear
from iscale.engine.step import Step
from iscale.errors import InputError
from iscale.geometry import Region
from iscale.words import plural

SETTINGS: dict[str, Any] = {
    # Who a worker was computing for is known, so a region is counted here: the scheduler gives it back at once.
    "distributed.scheduler.allowed-failures": 0,
    # Workers hold no data between tasks: there is nothing to spill, and one that pauses would never go on.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
    # What a result's bytes were is of no interest to anyone, nor are finished tasks.
    "distributed.scheduler.work-stealing": False,
    "distributed.worker.preload": ["iscale.engine.worker"],
}
"""Configuration of schedulers and workers."""

OF_THE_TERMINAL = {signal.SIGINT, signal.SIGHUP}


def thread_variables(threads: int) -> dict[str, str]:
    """Environment of a worker whose kernels may use so many threads; Dask itself runs one task at a time on it."""
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "ZARR_THREADING__MAX_WORKERS": str(threads),
    }


@contextlib.contextmanager
def _no_interrupts_for_children() -> Iterator[None]:
    """Leave Ctrl-C and hang-ups, which reach all processes of a shell's job, to this process, from the first moment on.

    The thread of the cluster's loop is started meanwhile. It keeps the mask, and so do all processes that it starts.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, OF_THE_TERMINAL)
    try:
        # Python's own helper of such processes keeps the mask too, and starting it lifts a part of ours.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, OF_THE_TERMINAL)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def local_cluster(workers: int, memory_bytes: int) -> Any:
    """A ``LocalCluster`` of processes (0: one per core) with this budget each."""
    import dask
    from distributed import LocalCluster

    cores = available_cores()
    workers = workers or cores
    environment = thread_variables(max(1, cores // workers))
    settings = {**SETTINGS, "distributed.nanny.pre-spawn-environ": environment, "distributed.worker.daemon": True}
    with dask.config.set(settings), _no_interrupts_for_children():
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=memory_bytes,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            silence_logs=50,
        )


def remote_driver(where: str, say: Say) -> DaskDriver:
    """Connect to a scheduler that runs, by its address (``tcp://...``) or the scheduler file (``.json``) that it wrote.

    Raises
    ------
    InputError
        If nobody answers there, there are no workers, or one runs several tasks at a time.
    """
    client = _connect(where)
    _announce(client, len(client.scheduler_info(n_workers=-1)["workers"]), say)
    return DaskDriver(client)


def remote_workers(where: str) -> list[int]:
    """Bytes of memory that each worker of a scheduler may use, 0 for no limit; it is refused as by `remote_driver`."""
    client = _connect(where)
    try:
        return [worker["memory_limit"] or 0 for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    finally:
        client.close()


def _check_form(where: str) -> None:
    """Refuse what is neither an address nor a file that is there."""
    if where.endswith(".json"):
        if not Path(where).expanduser().is_file():
            raise InputError(
                f"--dask {where}: there is no such file.",
                "`dask scheduler --scheduler-file FILE` writes it; wait until it has.",
            )
    elif "://" not in where:
        raise InputError(
            f"--dask {where}: neither local, nor an address, nor a file of a scheduler or a batch system.",
            "Say local; an address such as tcp://HOST:8786; the .json that a scheduler wrote; or slurm.yaml, lsf.yaml "
            "(`iscale init --scheduler slurm slurm.yaml`).",
        )


CONNECT_WITHIN = "10s"
"""How long a scheduler may take to answer."""


def _connect(where: str) -> Any:
    from distributed import Client

    _check_form(where)
    try:
        if where.endswith(".json"):
            client = Client(scheduler_file=str(Path(where).expanduser()), timeout=CONNECT_WITHIN)
        else:
            client = Client(where, timeout=CONNECT_WITHIN)
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
    """Processes on this machine (0: one per core) with a budget each, started with the first region to be computed."""

    def __init__(self, workers: int, memory_bytes: int, say: Say) -> None:
        self._asked_for = (workers, memory_bytes)
        self._say = say
        self._started: DaskDriver | None = None

    @property
    def started(self) -> DaskDriver:
        """The driver of the workers, which run from when they are first asked for."""
        if self._started is None:
            from distributed import Client

            cluster = local_cluster(*self._asked_for)
            client = Client(cluster)
            _announce(client, len(cluster.workers), self._say)
            self._started = DaskDriver(client, cluster)
        return self._started

    def map(self, step: Step, regions: Iterable[Region], hear: Hear | None = None) -> Iterator[Outcome]:
        """Run the regions on the workers."""
        return self.started.map(step, regions, hear)

    def close(self) -> None:
        """Stop the workers, if there are any."""
        if self._started is not None:
            self._started.close()


def _announce(client: Any, workers: int, say: Say) -> None:
    say(f"{plural(workers, 'Dask worker')}; {dashboard(client)}")


def dashboard(client: Any) -> str:
    """Where the scheduler's dashboard is, in words."""
    if importlib.util.find_spec("bokeh") is None:
        return "no dashboard, for want of the package bokeh"
    return f"dashboard: {client.dashboard_link}"
