"""Workers on this machine, and the settings that all Dask workers of a run share."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

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


def cores_here() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def start(workers: int, memory_bytes: int) -> Any:
    """A ``LocalCluster`` of processes (0: one per core) with this budget each."""
    import dask
    from distributed import LocalCluster

    cores = cores_here()
    workers = workers or cores
    environment = thread_variables(max(1, cores // workers))
    settings = {
        **SETTINGS,
        "distributed.nanny.pre-spawn-environ": environment,
        "distributed.worker.daemon": True,
    }
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
