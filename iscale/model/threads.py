"""How many threads torch works with while a model trains."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

CORES = "ISCALE_CORES"
"""Set in the environment of jobs of a batch system, whose cores not every site binds processes to."""


def available_cores() -> int:
    """Cores this process may run on."""
    if os.environ.get(CORES, "").isdigit():
        return int(os.environ[CORES])
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def all_cores() -> Iterator[int]:
    """Let torch use every core of this process, and restore its number of threads afterwards.

    Sums are split by the number of threads, so a training gives the same bytes only with the same number: here it
    depends on the process' cores alone, not on what the caller had set.

    Yields
    ------
    int
        The number of threads.
    """
    import torch

    before = torch.get_num_threads()
    cores = available_cores()
    torch.set_num_threads(cores)
    try:
        yield cores
    finally:
        torch.set_num_threads(before)
