"""The memory of this process: its peak, and giving back what was freed."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Peak resident memory of this process, in bytes.

    Where there is ``/proc``, it is the peak since this program began: ``getrusage`` also counts what the process was
    before, a copy of the one that started it.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back() -> None:
    """Return freed memory to the system, where the C library is glibc.

    glibc keeps the freed blocks of a task for the next one, in pieces that the next one may not fit into, so that the
    resident memory of a worker creeps up. Trimming once after a task costs milliseconds; the alternative, low
    thresholds for trimming and mapping, made the texture encoder several times slower: every temporary was mapped anew.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
