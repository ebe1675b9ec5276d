"""The memory of this process: its peak, and giving back what was freed."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys


def peak_bytes() -> int:
    """Peak resident memory of this process, in bytes."""
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
