"""Keeping freed memory from staying with the process."""

from __future__ import annotations

import contextlib
import ctypes
import sys

TRIM_THRESHOLD = 64 * 1024
"""Free bytes at the top of the heap that go back to the system at once."""

MMAP_THRESHOLD = 256 * 1024
"""Blocks of at least this size are mapped on their own, and unmapped when freed."""


def trim_eagerly() -> None:
    """Have this process give freed memory back to the system, where the C library is glibc.

    Without it glibc raises both thresholds as large arrays come and go, and the resident memory of a worker only grows.
    Workers started by us get the same through their environment, before they start.
    """
    if not sys.platform.startswith("linux"):
        return
    m_trim_threshold, m_mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_trim_threshold, TRIM_THRESHOLD)
        mallopt(m_mmap_threshold, MMAP_THRESHOLD)
