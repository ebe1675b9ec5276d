"""Arrays put aside on disk: compressed, in a file without a name, which goes with the process however that ends."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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
