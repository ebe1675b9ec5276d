"""Drivers: the same kernels over the same regions, in this process or on workers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from iscale.engine.attempt import Outcome, attempt
from iscale.engine.progress import Hear
from iscale.engine.step import Step, nothing
from iscale.geometry import Region

Say = Callable[[str], None]
"""Tells the user something in a sentence."""


class Driver(Protocol):
    """Runs a step's kernel over regions and yields outcomes as they come."""

    def map(self, step: Step, regions: Iterable[Region], hear: Hear | None = None) -> Iterator[Outcome]:
        """Run every region; an ``IscaleError`` of a kernel stops all, anything else fails that region only.

        ``hear`` is called with what kernels `tell`, from any thread, and perhaps late.
        """
        ...

    def close(self) -> None:
        """Let go of workers that the driver started."""
        ...


class SerialDriver:
    """One region after the other, in this process."""

    def map(self, step: Step, regions: Iterable[Region], hear: Hear | None = None) -> Iterator[Outcome]:
        """Run the regions in order."""
        for region in regions:
            yield attempt(step.kernel, step.context, region, hear)

    def close(self) -> None:
        """Nothing to let go of."""


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
