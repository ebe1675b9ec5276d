"""An AnnData file that is written as it comes: ``obs`` in blocks, matrices row by row in any order.

Matrices lie in one piece in the file, so a row has its place from the start and is written there without a copy of
all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iscale.store.anndata_file import INDEX, Hdf5, encoding, make_anndata, make_categories, make_frame
from iscale.store.scratch import FileRows

CHUNK = 1 << 14
"""Rows of a column of ``obs`` that are stored together."""


class _Repeats:
    """Whether names are unique, told by a hash of each: names of a million areas are not held.

    An empty one is none: it counts with those that come again. ``named`` says whether any is not empty.
    """

    def __init__(self) -> None:
        self._hashes: list[NDArray[np.uint64]] = []
        self._repeated: int | None = None
        self._empty = self.named = False

    def add(self, ids: list[str]) -> None:
        """Take note of some names."""
        self._empty |= not all(ids)
        self.named |= any(ids)
        self._hashes.append(pd.util.hash_array(np.asarray(ids, dtype=object), categorize=False))

    def repeated(self) -> int:
        """How many names come again or are empty; after it none can be added."""
        if self._repeated is None:
            every = np.concatenate([np.zeros(0, np.uint64), *self._hashes])
            self._hashes.clear()
            every.sort()
            self._repeated = int((every[1:] == every[:-1]).sum()) + self._empty
        return self._repeated


class TableWriter:
    """Writes the parts of an AnnData, in this order: `add_rows`, `make_matrices`, `adding`, `finish`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = _Repeats()
        self._columns: list[str] = []
        self._categories: dict[str, dict[str, int]] = {}
        self._starts: dict[str, int] = {}
        self.rows = 0
        self._open("w")
        make_anndata(self._into)

    def _open(self, mode: str) -> None:
        self._file = h5py.File(self._path, mode)
        self._into = Hdf5(self._file)

    def close(self) -> None:
        """Let go of the file, whole or not."""
        self._file.close()

    def add_rows(self, ids: list[str], columns: Mapping[str, Any]) -> None:
        """Write the names and columns of ``obs`` of the next rows: numbers, text, or categories."""
        self._names.add(ids)
        for name, values in {INDEX: np.array(ids, dtype=object), **columns}.items():
            self._append(name, values)
        self.rows += len(ids)

    def _append(self, name: str, values: Any) -> None:
        """Write the next values of a column; of categories, which become known as they come, an empty one is none."""
        path = f"obs/{name}"
        if isinstance(values, pd.Categorical):
            path, known = f"{path}/codes", self._categories.setdefault(name, {})
            own = [known.setdefault(c, len(known)) if c else -1 for c in values.categories]
            values = np.array([*own, -1], np.int32)[values.codes]
        if name not in self._columns:
            self._columns.append(name)
            self._into.growing(path, values.dtype, CHUNK)
        dataset = self._file[path]
        n = dataset.shape[0]
        dataset.resize((n + len(values),))
        dataset[n:] = values

    def column(self, name: str, rows: slice = slice(None)) -> NDArray[Any]:
        """Values of a column of numbers that was written."""
        return np.asarray(self._file[f"obs/{name}"][rows])

    def make_matrices(self, genes: Sequence[str], layers: Sequence[str]) -> None:
        """Make ``X`` and layers, (row, gene) float32 of 0, and ``var``."""
        self._genes = len(genes)
        self._into.element("var", pd.DataFrame(index=pd.Index(list(genes), dtype=object)))
        for name in ("X", *(f"layers/{layer}" for layer in layers)):
            about = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            about.set_layout(h5py.h5d.CONTIGUOUS)
            about.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            about.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # the file's end is moved: what is not written reads as 0
            space = h5py.h5s.create_simple((self.rows, self._genes))
            made = h5py.h5d.create(self._file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, about)
            h5py.Dataset(made).attrs.update(encoding("array"))
            self._starts[name] = int(made.get_offset())
        self._file.flush()

    @contextlib.contextmanager
    def adding(self) -> Iterator[dict[str, FileRows]]:
        """Gives the matrices by their names as rows that can be added to, while the file is closed for all else."""
        self._file.close()
        file = os.open(self._path, os.O_RDWR)
        try:
            yield {name: FileRows(file, self._genes, "<f4", start) for name, start in self._starts.items()}
        finally:
            os.close(file)
            self._open("r+")

    def finish(self, columns: Iterator[Mapping[str, NDArray[Any]]], um_per_px: float, uns: Mapping[str, Any]) -> None:
        """Write the columns that were found meanwhile, block by block, then all that makes it an AnnData.

        ``x_um`` and ``y_um`` become ``obsm["spatial"]``, and ``obsm["spatial_px"]`` in full-resolution pixels.
        """
        for block in columns:
            for name, values in block.items():
                self._append(name, values)
        order = [name for name in self._columns if name != INDEX and not self._without_text(name)]
        if self._names.repeated():
            order = self._number(order)
        make_frame(self._into, "obs", order)
        self._spatial(um_per_px)
        self._into.element("uns", dict(uns))

    def _without_text(self, name: str) -> bool:
        """Remove a column of text or categories that has none; write the categories of others."""
        path = f"obs/{name}"
        known = self._categories.get(name)
        empty = self._all_empty(path) if known is None else not known
        if empty:
            del self._file[path]
        elif known is not None:
            make_categories(self._into, path, list(known))
        return empty

    def _all_empty(self, path: str) -> bool:
        """Whether a column of text has none."""
        dataset = self._file[path]
        if h5py.check_string_dtype(dataset.dtype) is None:
            return False
        return not any(any(dataset[first : first + CHUNK]) for first in range(0, dataset.shape[0], CHUNK))

    def _number(self, order: list[str]) -> list[str]:
        """Number the rows, whose names are not unique: those go to a column."""
        names = f"obs/{INDEX}"
        if not self._all_empty(names):
            self._file.move(names, "obs/id")
            order = ["id", *order]
        else:
            del self._file[names]
        self._columns.remove(INDEX)
        for first in range(0, self.rows, CHUNK):
            numbers = range(first, min(first + CHUNK, self.rows))
            self._append(INDEX, np.array([str(i) for i in numbers], dtype=object))
        return order

    def _spatial(self, um_per_px: float) -> None:
        for name, unit in (("spatial", 1.0), ("spatial_px", um_per_px)):
            made = self._into.array(f"obsm/{name}", (self.rows, 2), "float64", (CHUNK, 2))
            for first in range(0, self.rows, CHUNK):
                part = slice(first, first + CHUNK)
                made[part] = np.column_stack([self.column("x_um", part), self.column("y_um", part)]) / unit

    def repeated(self) -> int:
        """How many rows have the name of another, or none."""
        return self._names.repeated()

    @property
    def named(self) -> bool:
        """Whether any row has a name."""
        return self._names.named
