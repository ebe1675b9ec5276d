"""Who works on a run: how many workers compute a step, with how much memory each, and the driver that has them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from iscale.engine.drivers import Driver, Say, SerialDriver
from iscale.engine.plan import Resources, format_bytes, size_like
from iscale.engine.step import Where, nothing
from iscale.errors import InputError
from iscale.options import Options


@dataclass(frozen=True)
class Workers:
    """Workers of a run, as plans are made for them.

    Attributes
    ----------
    cpu, gpu
        What computes any step, and what computes the networks.
    device
        Torch device of the networks; ``auto`` where each worker looks for itself.
    """

    cpu: Resources
    gpu: Resources
    device: str

    def budget(self, options: Options) -> str:
        """Memory of a worker, as the user gave it where that is what counts."""
        given = self.cpu.memory_bytes == options.memory_bytes
        return options.memory if given else format_bytes(self.cpu.memory_bytes)

    def with_memory(self, memory_bytes: int) -> Workers:
        """The same workers with another budget."""
        cpu, gpu = (replace(pool, memory_bytes=memory_bytes) for pool in (self.cpu, self.gpu))
        return replace(self, cpu=cpu, gpu=gpu)

    def of(self, where: Where) -> Resources:
        """What computes a step."""
        return self.gpu if where == "gpu" else self.cpu

    def beside(self, held_bytes: int) -> Workers:
        """The workers where its memory has to do for something held all the while, too."""
        cpu, gpu = (replace(pool, memory_bytes=pool.memory_bytes - held_bytes) for pool in (self.cpu, self.gpu))
        return replace(self, cpu=cpu, gpu=gpu)


def plan_workers(options: Options) -> Workers:
    """Find out who will work, from the options and what they name; nothing is started.

    Raises
    ------
    InputError
        If workers are named that are not there, or a card that nobody has.
    """
    from iscale.engine.machine import available_cores, here

    if file := batch_file(options.dask):
        return _batch_workers(options, file)
    if options.dask is None or options.dask == "local":
        workers = 1 if options.dask is None else options.workers or available_cores()
        resources = Resources(options.memory_bytes, workers, options.region_shards)
        return Workers(resources, resources, here(options.device))
    from iscale.engine.dask_workers import remote_workers

    budgets = remote_workers(options.dask)
    smallest = min(budgets) or options.memory_bytes
    if smallest < options.memory_bytes:
        raise InputError(
            f"--memory {options.memory}: a worker of {options.dask} may use {format_bytes(smallest)} only.",
            f"Say --memory {size_like(options.memory, smallest, down=True)}, or start workers with "
            f"--memory-limit {options.memory}.",
        )
    resources = Resources(options.memory_bytes, len(budgets), options.region_shards)
    return Workers(resources, resources, options.device)


def _batch_workers(options: Options, file: Path) -> Workers:
    from iscale.batch.settings import Pool, read_site

    site = read_site(file)
    on_cards = site.gpu is not None and options.device != "cpu"
    if options.device.startswith("cuda") and not on_cards:
        raise InputError(f"--device {options.device}: {file} has no pool of cards.", "Add `gpu:` to it, or use auto.")

    def resources(name: str, pool: Pool) -> Resources:
        memory, more = pool.worker_bytes, f"in {file}, {name}.memory, so that each of {pool.workers} workers has {{}}"
        if "memory" in options.model_fields_set and options.memory_bytes < memory:
            memory, more = options.memory_bytes, "--memory {}"
        return Resources(memory, pool.jobs * pool.workers, options.region_shards, more)

    cpu = resources("cpu", site.cpu)
    return Workers(cpu, resources("gpu", site.gpu) if on_cards and site.gpu else cpu, "auto" if on_cards else "cpu")


def batch_file(dask: str | None) -> Path | None:
    """The file that ``--dask`` names, if it names workers that a batch system starts."""
    return Path(dask).expanduser() if dask and dask.endswith((".yaml", ".yml")) else None


@contextlib.contextmanager
def open_driver(
    dask: str | None,
    workers: int,
    memory_bytes: int,
    *,
    on_cards: bool = False,
    logs: Path = Path("logs"),
    say: Say = nothing,
) -> Iterator[Driver]:
    """Open the driver of the ``--dask`` option and close it in the end.

    Parameters
    ----------
    dask
        None for this process; ``local``; a scheduler's address or scheduler file; or the file of a batch system.
    workers, memory_bytes
        Processes to start for ``local`` (0: one per core), and the budget of each.
    on_cards
        Whether a batch system's pool of cards computes the networks.
    logs
        Folder for what jobs of a batch system print.
    say
        Who is told of workers that come and go.
    """
    driver: Driver
    if dask is None:
        driver = SerialDriver()
    elif file := batch_file(dask):
        from iscale.batch.driver import BatchDriver
        from iscale.batch.settings import read_site

        driver = BatchDriver(read_site(file), on_cards=on_cards, logs=logs, say=say)
    else:
        from iscale.engine.dask_workers import LocalDriver, remote_driver

        driver = LocalDriver(workers, memory_bytes, say) if dask == "local" else remote_driver(dask, say)
    try:
        yield driver
    finally:
        driver.close()
