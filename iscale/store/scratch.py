"""Files that are gone with the process: bytes at a place of one, rows of numbers, and arrays that are put aside."""

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
from numpy.typing import DTypeLike, NDArray


def nameless(holder: object, folder: Path | None = None) -> int:
    """Descriptor of a file without a name, closed when nobody holds ``holder`` any more.

    It lies in the folder, or in ``$TMPDIR`` or wherever the system puts such files.
    """
    file, name = tempfile.mkstemp(prefix="iscale-", dir=folder)
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
    """Fill a contiguous array with the bytes at a place; an OSError where the file ends before."""
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


class FileRows:
    """Rows (row, column) of one length in a file, read and written by their number: never are all in memory.

    Nothing of the file is mapped, since mapped pages count as memory of the process.

    Parameters
    ----------
    file
        Its descriptor.
    width, dtype
        Length of a row, and type of its numbers.
    start
        Byte of the file at which the first row begins.
    """

    def __init__(self, file: int, width: int, dtype: DTypeLike, start: int = 0) -> None:
        self.width, self.dtype = width, np.dtype(dtype)
        self._file, self._start, self._bytes = file, start, width * self.dtype.itemsize

    @classmethod
    def nameless(cls, folder: Path, width: int, dtype: DTypeLike = np.float32) -> FileRows:
        """Rows in a file without a name, so that it is gone with the process, however that ends; its folder is made."""
        folder.mkdir(parents=True, exist_ok=True)
        found = cls(-1, width, dtype)
        found._file = nameless(found, folder)
        return found

    def write(self, first: int, rows: NDArray[Any]) -> None:
        """Write rows from a number on; what is skipped takes no room on file systems that know holes."""
        write_at(self._file, self._place(first), rows.astype(self.dtype, copy=False))

    def read(self, first: int, rows: NDArray[Any]) -> None:
        """Fill contiguous rows from a number on; an OSError where the file ends before."""
        read_at(self._file, self._place(first), rows)

    def take(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """(row, column) of these rows; those that follow each other are read together."""
        found = np.empty((len(numbers), self.width), self.dtype)
        for a, b in runs(numbers):
            self.read(int(numbers[a]), found[a:b])
        return found

    def add(self, numbers: NDArray[np.int64], values: NDArray[Any], column: int = 0) -> None:
        """Add values (row, column), from a column on, to ascending rows that are there."""
        width = values.shape[1]
        whole = width == self.width  # rows that follow each other lie together
        for a, b in runs(numbers) if whole else ((i, i + 1) for i in range(len(numbers))):
            place = self._place(int(numbers[a])) + column * self.dtype.itemsize
            sums = np.empty((b - a, width), self.dtype)
            read_at(self._file, place, sums)
            sums += values[a:b]
            write_at(self._file, place, sums)

    def _place(self, number: int) -> int:
        return self._start + number * self._bytes


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
    """A nameless file of one-dimensional arrays, each compressed (zstd).

    Counts are mostly small whole numbers: they are stored as such, and read back as what they were.
    """

    def __init__(self) -> None:
        self._file = nameless(self)
        self._codec = pa.Codec("zstd", compression_level=1)
        self.n_bytes = 0

    def add(self, values: NDArray[Any]) -> Part:
        """Put an array (n,) at the end."""
        stored = _narrowed(values)
        packed = self._codec.compress(np.ascontiguousarray(stored).tobytes(), asbytes=True)
        part = Part(self.n_bytes, len(packed), len(values), stored.dtype, values.dtype)
        write_at(self._file, part.offset, np.frombuffer(packed, np.uint8))
        self.n_bytes += len(packed)
        return part

    def read(self, part: Part) -> NDArray[Any]:
        """An array (n,) as it was added."""
        packed = np.empty(part.n_bytes, np.uint8)
        read_at(self._file, part.offset, packed)
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
