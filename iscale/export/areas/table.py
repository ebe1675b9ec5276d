"""An AnnData file that is written as it comes: ``obs`` in blocks, matrices row by row in any order.

Matrices lie in one piece in the file, so a row has its place from the start and is written there without a copy of
all. The file appears under its name when it is whole.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iscale.export.areas.areas import Repeats
from iscale.store.scratch import read_at, runs, write_at

TEXT = h5py.string_dtype()
CHUNK = 1 << 14
"""Rows of a column of ``obs`` that are stored together."""

INDEX = "_index"
DTYPE = np.dtype("<f4")


class TableWriter:
    """Writes the parts of an AnnData, in this order: `add_rows`, `make_matrices`, `add` ..., `finish`.

    Parameters
    ----------
    path
        What to write to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = Repeats()
        self._columns: dict[str, h5py.Dataset | _Categories] = {}
        self._matrices: dict[str, int] = {}
        self.rows = 0
        self._file = h5py.File(path, "w")
        self._file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        self._obs = self._file.create_group("obs")

    def close(self) -> None:
        """Let go of the file, whole or not."""
        self._file.close()

    def add_rows(self, ids: list[str], columns: Mapping[str, Any]) -> None:
        """Write the names and columns of ``obs`` of the next rows: numbers, text, or categories."""
        self._names.add(ids)
        for name, values in {INDEX: np.array(ids, dtype=object), **columns}.items():
            if name not in self._columns:
                self._columns[name] = self._column(name, values)
            column = self._columns[name]
            if isinstance(column, _Categories):
                column.add(values)
            else:
                _append(column, values)
        self.rows += len(ids)

    def _column(self, name: str, values: Any) -> h5py.Dataset | _Categories:
        if isinstance(values, pd.Categorical):
            return _Categories(self._obs.create_group(name))
        return _growing(self._obs, name, TEXT if values.dtype == object else values.dtype)

    def make_matrices(self, genes: Sequence[str], layers: Sequence[str]) -> None:
        """Make ``X`` and layers, (row, gene) float32 of 0, and ``var``."""
        self._genes = len(genes)
        ad.io.write_elem(self._file, "var", pd.DataFrame(index=pd.Index(list(genes), dtype=object)))
        group = self._file.create_group("layers")
        group.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        for name in ("X", *(f"layers/{layer}" for layer in layers)):
            about = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            about.set_layout(h5py.h5d.CONTIGUOUS)
            about.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            about.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # the file's end is moved: what is not written reads as 0
            space = h5py.h5s.create_simple((self.rows, self._genes))
            made = h5py.h5d.create(self._file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, about)
            dataset = h5py.Dataset(made)
            dataset.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            self._matrices[name] = int(made.get_offset())
        self._file.flush()

    @contextlib.contextmanager
    def adding(self) -> Iterator[Any]:
        """Gives what adds to rows: ``add(matrix, rows, first, values)``, while the file is closed for all else."""
        self._file.close()
        file = os.open(self._path, os.O_RDWR)

        def add(matrix: str, rows: NDArray[np.int64], first: int, values: NDArray[np.float32]) -> None:
            """Add (row, gene) values to ascending rows, from a gene on."""
            width = values.shape[1]
            whole = width == self._genes  # rows that follow each other lie together
            for a, b in runs(rows) if whole else ((i, i + 1) for i in range(len(rows))):
                place = self._matrices[matrix] + DTYPE.itemsize * (int(rows[a]) * self._genes + first)
                there = np.empty((b - a, width), DTYPE)
                read_at(file, place, there)
                there += values[a:b]
                write_at(file, place, there)

        try:
            yield add
        finally:
            os.close(file)
            self._file = h5py.File(self._path, "r+")

    def finish(self, columns: Iterator[Mapping[str, NDArray[Any]]], um_per_px: float, uns: Mapping[str, Any]) -> None:
        """Write the columns that were found meanwhile, block by block, then all that makes it an AnnData.

        ``x_um`` and ``y_um`` become ``obsm["spatial"]``, and ``obsm["spatial_px"]`` in full-resolution pixels.
        """
        obs = self._file["obs"]
        self._columns = {
            name: column if isinstance(column, _Categories) else obs[name] for name, column in self._columns.items()
        }
        for block in columns:
            for name, values in block.items():
                if name not in self._columns:
                    self._columns[name] = _growing(obs, name, values.dtype)
                _append(self._columns[name], values)
        for name, column in list(self._columns.items()):
            empty = column.finish(obs) if isinstance(column, _Categories) else _all_empty(column)
            if empty and name != INDEX:
                del obs[name], self._columns[name]
        order = [name for name in self._columns if name != INDEX]
        if self._names.repeated():
            order = self._number(obs, order)
        obs.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": INDEX})
        obs.attrs["column-order"] = np.array(order, dtype=TEXT)
        self._spatial(obs, um_per_px)
        ad.io.write_elem(self._file, "uns", dict(uns))
        for name in ("obsp", "varm", "varp"):
            ad.io.write_elem(self._file, name, {})

    def _number(self, obs: h5py.Group, order: list[str]) -> list[str]:
        """Number the rows, whose names are not unique: those go to a column."""
        if not _all_empty(obs[INDEX]):
            obs.move(INDEX, "id")
            order = ["id", *order]
        else:
            del obs[INDEX]
        numbers = _growing(obs, INDEX, TEXT)
        for first in range(0, self.rows, CHUNK):
            _append(numbers, np.array([str(i) for i in range(first, min(first + CHUNK, self.rows))], dtype=object))
        return order

    def _spatial(self, obs: h5py.Group, um_per_px: float) -> None:
        group = self._file.create_group("obsm")
        group.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        for name, unit in (("spatial", 1.0), ("spatial_px", um_per_px)):
            made = group.create_dataset(name, (self.rows, 2), "f8")
            made.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            for first in range(0, self.rows, CHUNK):
                part = slice(first, first + CHUNK)
                made[part] = np.column_stack([obs["x_um"][part], obs["y_um"][part]]) / unit

    def repeated(self) -> int:
        """How many rows have the name of another."""
        return self._names.repeated()


class _Categories:
    """A column of categories that become known as it is written."""

    def __init__(self, group: h5py.Group) -> None:
        self._name = group.name
        self._codes = _growing(group, "codes", np.dtype(np.int32))
        self._number: dict[str, int] = {}

    def add(self, values: pd.Categorical) -> None:
        """Write the next values; an empty one is none."""
        own = [self._number.setdefault(c, len(self._number)) if c else -1 for c in values.categories]
        codes = np.array([*own, -1], np.int32)[values.codes]
        _append(self._codes, codes)

    def finish(self, obs: h5py.Group) -> bool:
        """Write the categories; whether there is none."""
        group = obs.file[self._name]
        group.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        ad.io.write_elem(group, "categories", np.array(list(self._number), dtype=object))
        return not self._number


def _growing(group: h5py.Group, name: str, dtype: Any) -> h5py.Dataset:
    made = group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(CHUNK,))
    kind = "string-array" if dtype is TEXT else "array"
    made.attrs.update({"encoding-type": kind, "encoding-version": "0.2.0"})
    return made


def _append(dataset: Any, values: NDArray[Any]) -> None:
    n = dataset.shape[0]
    dataset.resize((n + len(values),))
    dataset[n:] = values


def _all_empty(dataset: Any) -> bool:
    """Whether a column of text has none."""
    if h5py.check_string_dtype(dataset.dtype) is None:
        return False
    return not any(any(dataset[first : first + CHUNK]) for first in range(0, dataset.shape[0], CHUNK))
