"""What this process has to work with: memory, a device for tensors, threads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from iscale.errors import InputError


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


CARD_EXPECTED = "ISCALE_CARD_EXPECTED"
"""Set in the environment of workers that were started to use a card: computing without it is an error there."""


def here(device: str) -> str:
    """The torch device of this process: ``auto`` is its card, where it has one.

    An `InputError` if a card was asked for, by name or by starting this worker to use one, and torch sees none.
    """
    wanted = "cuda" if device == "auto" and os.environ.get(CARD_EXPECTED) else device
    if wanted == "auto":
        return "cuda" if has_card() else "cpu"
    if wanted.startswith("cuda") and not has_card():
        raise InputError(
            f"--device {wanted}: torch sees no CUDA device on {socket.gethostname()}.",
            "Use --device cpu, or auto; or start workers where there are cards, with a torch that is built for CUDA.",
        )
    return wanted


def has_card() -> bool:
    """Whether torch sees a card here; a torch that was built for processors alone is not imported for that."""
    if version("torch").endswith("+cpu"):
        return False
    import torch

    return torch.cuda.is_available()


CORES = "ISCALE_CORES"
"""Set in the environment of jobs of a batch system, whose cores not every site binds processes to."""


def available_cores() -> int:
    """Cores this process may run on."""
    if os.environ.get(CORES, "").isdigit():
        return int(os.environ[CORES])
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def all_cores() -> Iterator[int]:
    """Let torch use every core of this process, and restore its number of threads afterwards.

    Sums are split by the number of threads, so a training gives the same bytes only with the same number: here it
    depends on the process' cores alone, not on what the caller had set. Yields the number of threads.
    """
    import torch

    before = torch.get_num_threads()
    cores = available_cores()
    torch.set_num_threads(cores)
    try:
        yield cores
    finally:
        torch.set_num_threads(before)
