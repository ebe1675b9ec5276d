"""Who works on a run: how many workers compute a step, and with how much memory each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from iscale.engine.drivers import batch_file
from iscale.engine.plan import Resources, format_bytes
from iscale.engine.step import Where
from iscale.errors import InputError
from iscale.options import Options


@dataclass(frozen=True)
class Crew:
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

    def of(self, where: Where) -> Resources:
        """What computes a step."""
        return self.gpu if where == "gpu" else self.cpu

    def beside(self, held_bytes: int) -> Crew:
        """The crew where its memory has to do for something held all the while, too."""
        cpu, gpu = (replace(pool, memory_bytes=pool.memory_bytes - held_bytes) for pool in (self.cpu, self.gpu))
        return replace(self, cpu=cpu, gpu=gpu)


def plan_crew(options: Options) -> Crew:
    """Find out who will work, from the options and what they name; nothing is started.

    Raises
    ------
    InputError
        If workers are named that are not there, or a card that nobody has.
    """
    from iscale.engine.machine import here

    if file := batch_file(options.dask):
        return _batch_crew(options, file)
    if options.dask is None or options.dask == "local":
        from iscale.engine.dask_workers import cores_here

        workers = 1 if options.dask is None else options.workers or cores_here()
        resources = Resources(options.memory_bytes, workers, options.region_shards)
        return Crew(resources, resources, here(options.device))
    from iscale.engine.dask_workers import remote_workers

    budgets = remote_workers(options.dask)
    smallest = min(budgets) or options.memory_bytes
    if smallest < options.memory_bytes:
        raise InputError(
            f"--memory {options.memory}: a worker of {options.dask} may use {format_bytes(smallest)} only.",
            f"Say --memory {smallest // 10**8 / 10:.1f}GB, or start workers with --memory-limit {options.memory}.",
        )
    resources = Resources(options.memory_bytes, len(budgets), options.region_shards)
    return Crew(resources, resources, options.device)


def _batch_crew(options: Options, file: Path) -> Crew:
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
    return Crew(cpu, resources("gpu", site.gpu) if on_cards and site.gpu else cpu, "auto" if on_cards else "cpu")
