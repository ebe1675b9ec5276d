"""What a driver is, one attempt at a region as every driver makes it, and the driver of this process.

Kernels and regions are the same for all drivers; `iscale.engine.dask_driver` has the one for workers.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from iscale.engine.machine import give_back, peak_bytes
from iscale.engine.progress import Hear, listening
from iscale.engine.step import Kernel, Step, There
from iscale.errors import IscaleError, StoreError, StoreUnreachableError
from iscale.geometry import Region

CANNOT_WRITE = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES)
"""Errors of the disk that trying again does not mend."""


@dataclass(frozen=True)
class Usage:
    """What an attempt took: wall time, and processor time of all threads of the process.

    The peak of resident memory is the process' so far; bytes are those that it asked the system to read and write, from
    caches too, 0 where the system does not count them.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of one region: what the kernel returned, or why it failed, and what the attempt took.

    ``elsewhere`` says that the failure may be of the node rather than of the region: its file system was not reached.
    """

    region: Region
    value: Any = None
    error: str = ""
    elsewhere: bool = False
    usage: Usage = field(default_factory=Usage)


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


def attempt(
    kernel: Kernel, context: Any, region: Region, hear: Hear | None = None, anchors: tuple[There, ...] = ()
) -> Outcome:
    """Run one region here; errors of the disk are told apart from errors of the node and of the region.

    ``anchors`` are files that are there as long as the output folder is: where a file system is unmounted, its folder
    is an empty one of the node's own disk, which takes what is written to it without a word. What is raised is an
    `IscaleError` after which going on makes no sense: the input is bad, or the disk is full.
    """
    before = _spent()
    try:
        with listening(region, hear):
            value = kernel(context, region)
        if not all_there(anchors):
            raise StoreUnreachableError(f"{anchors[0]} was not there after the region was written.")
    except StoreUnreachableError as error:
        return Outcome(region, error=f"{error.problem} (on {socket.gethostname()})", elsewhere=True)
    except IscaleError:
        raise
    except OSError as error:
        if error.errno in CANNOT_WRITE:
            raise cannot_write(error) from error
        return Outcome(region, error=_described(error), elsewhere=True)
    except Exception as error:
        # Libraries that are not written in Python have errors of their own, which quote the system's.
        if os.strerror(errno.ENOSPC) in str(error):
            raise cannot_write(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error
        return Outcome(region, error=_described(error))
    finally:
        give_back()
    return Outcome(region, value, usage=_usage_since(before))


def all_there(paths: tuple[There, ...]) -> bool:
    """Whether all of some files can be seen from here."""
    try:
        return all(path.exists() for path in paths)
    except OSError:
        return False


def cannot_write(error: OSError) -> StoreError:
    """What the user is told of an error of the disk."""
    return StoreError(
        f"Cannot write {error.filename or 'to the output folder'}: {error.strerror or error}.",
        "Make room or choose another folder with --out; what is done is kept, the same command continues.",
    )


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error} (on {socket.gethostname()})"


def _spent() -> tuple[float, float, int, int]:
    """What this process has used so far: wall and processor time, and bytes that it has read and written."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    try:
        lines = Path("/proc/self/io").read_text().split()
        moved = int(lines[1]), int(lines[3])
    except OSError:
        moved = 0, 0
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used), *moved


def _usage_since(before: tuple[float, float, int, int]) -> Usage:
    now = _spent()
    return Usage(now[0] - before[0], now[1] - before[1], peak_bytes(), now[2] - before[2], now[3] - before[3])
