"""Bytes at a place of an open file, all of them or an error; and a nameless file that is gone with the process.

Nothing is mapped: mapped pages count as memory of the process.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def nameless(folder: Path, holder: object) -> int:
    """Descriptor of a file without a name in a folder, closed when nobody holds ``holder`` any more."""
    file, name = tempfile.mkstemp(dir=folder)
    weakref.finalize(holder, os.close, file)
    Path(name).unlink()
    return file


def write_at(file: int, place: int, values: NDArray[Any]) -> None:
    """Write an array's bytes at a place."""
    left = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    while left:
        written = os.pwrite(file, left, place)
        left, place = left[written:], place + written


def read_at(file: int, place: int, values: NDArray[Any]) -> None:
    """Fill a contiguous array with the bytes at a place.

    Raises
    ------
    OSError
        The file ends before.
    """
    left = values.reshape(-1).view(np.uint8).data
    while left:
        found = os.preadv(file, [left], place)
        if not found:
            raise OSError(f"the file ends {len(left)} bytes early")
        left, place = left[found:], place + found


def runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where ascending numbers follow each other without a gap: first and last place (the latter not included).

    >>> list(runs(np.array([3, 4, 7])))
    [(0, 2), (2, 3)]
    """
    breaks = (np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()
    yield from pairwise([0, *breaks, len(numbers)] if len(numbers) else [])
