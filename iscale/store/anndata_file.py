"""AnnData on disk, written as its values come: its format in HDF5 and in Zarr, of which anndata reads both.

Format: https://anndata.readthedocs.io/en/stable/fileformat-prose.html. Small elements are written by anndata.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import anndata
import anndata.io
import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

INDEX = "_index"
"""Column of a data frame that names its rows."""

VERSIONS = {
    "anndata": "0.1.0",
    "array": "0.2.0",
    "categorical": "0.2.0",
    "csr_matrix": "0.1.0",
    "dataframe": "0.2.0",
    "dict": "0.1.0",
    "string-array": "0.2.0",
}


def encoding(kind: str) -> dict[str, Any]:
    """Attributes by which a reader knows a kind of element.

    >>> encoding("dict")
    {'encoding-type': 'dict', 'encoding-version': '0.1.0'}
    """
    return {"encoding-type": kind, "encoding-version": VERSIONS[kind]}


class Group(Protocol):
    """A group of HDF5 or Zarr as it is written here."""

    chunk: tuple[int, int]
    """Rows and genes of a chunk of X."""

    def array(self, path: str, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...]) -> Any:
        """Make an array that takes slices."""
        ...

    def strings(self, path: str, n: int, chunk: int) -> Any:
        """Make an array of text of any length."""
        ...

    def group(self, path: str, kind: str, **attributes: Any) -> None:
        """Make a group of a kind, or make one that."""
        ...

    def element(self, path: str, value: Any) -> None:
        """Write something small, as anndata does."""
        ...


class Hdf5:
    """A group of an HDF5 file; its arrays are compressed so that every HDF5 library reads them."""

    chunk = (512, 128)

    def __init__(self, group: h5py.Group) -> None:
        self._group = group

    def array(self, path: str, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...]) -> Any:
        """An array of numbers, compressed."""
        made = self._group.create_dataset(
            path, shape, dtype, chunks=_fitting(chunks, shape), compression="gzip", compression_opts=1, shuffle=True
        )
        made.attrs.update(encoding("array"))
        return made

    def strings(self, path: str, n: int, chunk: int) -> Any:
        """An array of text."""
        made = self._group.create_dataset(path, (n,), h5py.string_dtype(), chunks=_fitting((chunk,), (n,)))
        made.attrs.update(encoding("string-array"))
        return made

    def growing(self, path: str, dtype: np.dtype[Any], chunk: int) -> Any:
        """An array of numbers or text (objects) that is empty yet, and can be resized."""
        text = dtype.kind == "O"
        kind = h5py.string_dtype() if text else dtype
        made = self._group.create_dataset(path, (0,), kind, maxshape=(None,), chunks=(chunk,))
        made.attrs.update(encoding("string-array" if text else "array"))
        return made

    def group(self, path: str, kind: str, **attributes: Any) -> None:
        """A group with attributes."""
        made = self._group.require_group(path)
        made.attrs.update({k: _texts(v) for k, v in (encoding(kind) | attributes).items()})

    def element(self, path: str, value: Any) -> None:
        """As anndata writes it."""
        inside, _, name = path.rpartition("/")
        anndata.io.write_elem(self._group[inside] if inside else self._group, name, value)


class Zarr:
    """A group of a Zarr store; chunks are files, so they are larger."""

    chunk = (2048, 256)

    def __init__(self, group: zarr.Group) -> None:
        self._group = group

    def array(self, path: str, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...]) -> Any:
        """An array of numbers."""
        return self._group.create_array(
            path, shape=shape, dtype=dtype, chunks=_fitting(chunks, shape), attributes=encoding("array")
        )

    def strings(self, path: str, n: int, chunk: int) -> Any:
        """An array of text, which takes objects."""
        text = np.dtypes.StringDType()
        made = self._group.create_array(
            path, shape=(n,), dtype=text, chunks=_fitting((chunk,), (n,)), attributes=encoding("string-array")
        )
        return _AsStrings(made)

    def group(self, path: str, kind: str, **attributes: Any) -> None:
        """A group with attributes."""
        self._group.require_group(path).attrs.update(encoding(kind) | attributes)

    def element(self, path: str, value: Any) -> None:
        """As anndata writes it."""
        inside, _, name = path.rpartition("/")
        with anndata.settings.override(auto_shard_zarr_v3=False):  # what is small needs none
            anndata.io.write_elem(self._group[inside] if inside else self._group, name, value)


class _AsStrings:
    """Takes objects, and writes NumPy's strings."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __setitem__(self, place: Any, values: NDArray[Any]) -> None:
        self._array[place] = values.astype(np.dtypes.StringDType())


def _texts(value: Any) -> Any:
    """Lists of text as HDF5 takes them, also where they are empty."""
    return np.array(value, dtype=h5py.string_dtype()) if isinstance(value, list) else value


def _fitting(chunks: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(1, min(c, n)) for c, n in zip(chunks, shape, strict=True))


def make_anndata(into: Group) -> None:
    """Make an empty group an AnnData of which `X`, `obs`, `var` and `uns` are still to come."""
    into.group("/", "anndata")
    for name in ("layers", "obsm", "obsp", "varm", "varp"):
        into.group(name, "dict")


def make_frame(into: Group, path: str, columns: Sequence[str]) -> None:
    """Make a data frame of columns, and of `INDEX`, that are there or are written later."""
    into.group(path, "dataframe", **{"_index": INDEX, "column-order": list(columns)})


def make_categories(into: Group, path: str, names: Sequence[str]) -> None:
    """Make a column of categories, whose numbers are written to ``codes`` in it."""
    into.group(path, "categorical", ordered=False)
    into.element(f"{path}/categories", np.array(list(names), dtype=object))


class InChunks:
    """Appends rows to an array, whole chunks at a time: written in parts, a chunk is compressed anew with each.

    Parameters
    ----------
    array
        The array, as long as it will be.
    chunk
        Rows of one of its chunks, or shards.
    columns
        Which of its columns; None where it has none, or all.
    """

    def __init__(self, array: Any, chunk: int, columns: slice | None = None) -> None:
        self._array, self._chunk, self._columns = array, chunk, columns
        self._held: list[NDArray[Any]] = []
        self._n_held = self._n_written = 0

    def add(self, values: NDArray[Any]) -> None:
        """Append rows."""
        self._held.append(values)
        self._n_held += len(values)
        if self._n_held >= self._chunk:
            joined = np.concatenate(self._held)
            whole = len(joined) // self._chunk * self._chunk
            self._held, self._n_held = [joined[whole:].copy()], len(joined) - whole
            self._write(joined[:whole])

    def close(self) -> None:
        """Write what is left."""
        if self._n_held:
            self._write(np.concatenate(self._held))
        self._held, self._n_held = [], 0

    def _write(self, values: NDArray[Any]) -> None:
        """Write rows, a chunk at a time: when a disk is full, nothing is still being written while it is removed."""
        for start in range(0, len(values), self._chunk):
            part = values[start : start + self._chunk]
            rows = slice(self._n_written, self._n_written + len(part))
            self._array[rows if self._columns is None else (rows, self._columns)] = part
            self._n_written += len(part)
