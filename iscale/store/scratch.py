"""Files that are gone with the process: bytes at a place of one, and arrays that are put aside."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
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


SMALL_INTEGERS = tuple(np.dtype(name) for name in ("u1", "u2", "i4"))


@dataclass(frozen=True)
class Part:
    """Where an array lies in a spill: its place and bytes, how it is stored, and what it is read as."""

    offset: int
    n_bytes: int
    n: int
    stored: np.dtype[Any]
    dtype: np.dtype[Any]


class Spill:
    """A temporary file of one-dimensional arrays, each compressed (zstd), in ``$TMPDIR`` or wherever the system puts
    such files.

    Counts are mostly small whole numbers: they are stored as such, and read back as what they were.
    """

    def __init__(self) -> None:
        self._file, name = tempfile.mkstemp(prefix="iscale-")
        weakref.finalize(self, os.close, self._file)
        Path(name).unlink()
        self._codec = pa.Codec("zstd", compression_level=1)
        self.n_bytes = 0

    def add(self, values: NDArray[Any]) -> Part:
        """Put an array (n,) at the end."""
        stored = _narrowed(values)
        packed = self._codec.compress(np.ascontiguousarray(stored).tobytes(), asbytes=True)
        part = Part(self.n_bytes, len(packed), len(values), stored.dtype, values.dtype)
        written = 0
        while written < len(packed):
            written += os.pwrite(self._file, packed[written:], part.offset + written)
        self.n_bytes += len(packed)
        return part

    def read(self, part: Part) -> NDArray[Any]:
        """An array (n,) as it was added."""
        packed = os.pread(self._file, part.n_bytes, part.offset)
        raw = self._codec.decompress(packed, part.n * part.stored.itemsize, asbytes=True)
        return np.frombuffer(raw, part.stored).astype(part.dtype)

    def read_all(self, parts: Sequence[Part]) -> NDArray[Any]:
        """Arrays one behind the other; at least one."""
        return np.concatenate([self.read(part) for part in parts])


def _narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the smallest type that holds them; others as they are."""
    if not len(values) or values.dtype.kind not in "iuf":
        return values
    low, high = values.min(), values.max()
    for dtype in SMALL_INTEGERS:
        info = np.iinfo(dtype)
        if dtype.itemsize < values.dtype.itemsize and info.min <= low and high <= info.max:
            narrow = values.astype(dtype)
            return narrow if values.dtype.kind != "f" or np.array_equal(narrow, values) else values
    return values
