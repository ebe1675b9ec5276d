"""AnnData on disk, written as its rows come: its format in HDF5 and in Zarr, of which anndata reads both.

Format: https://anndata.readthedocs.io/en/stable/fileformat-prose.html. Small elements are written by anndata.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import anndata
import anndata.io
import h5py
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.export.request import Request
from iscale.export.rows import Column, Piece, Table, index_of, read_sums

GENES_AT_ONCE = 256
"""Genes read together of a shard, in float32 17 MB: what is computed on demand is then read once for all of them."""

ROWS_OF_COLUMNS = 65536
"""Rows of a chunk of what is not X."""

ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}
Filled = tuple["Rows", Callable[[Piece], NDArray[Any]]]
"""An array, and what gives a piece's rows of it."""

STRINGS = {"encoding-type": "string-array", "encoding-version": "0.2.0"}


class Group(Protocol):
    """A group of HDF5 or Zarr as it is written here."""

    chunk: tuple[int, int]
    """Rows and genes of a chunk of X."""

    def array(self, path: str, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...]) -> Any:
        """Make an array that takes slices."""
        ...

    def strings(self, path: str, n: int, chunk: int) -> Any:
        """Make an array of text."""
        ...

    def group(self, path: str, **attributes: Any) -> None:
        """Make a group, or give one attributes."""
        ...

    def element(self, path: str, value: Any) -> None:
        """Write something small."""
        ...


class Hdf5:
    """A group of an HDF5 file."""

    chunk = (512, 128)

    def __init__(self, group: h5py.Group) -> None:
        self._group = group

    def array(self, path: str, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...]) -> Any:
        """An array compressed so that every HDF5 library reads it."""
        made = self._group.create_dataset(
            path, shape, dtype, chunks=_fitting(chunks, shape), compression="gzip", compression_opts=1, shuffle=True
        )
        made.attrs.update(ARRAY)
        return made

    def strings(self, path: str, n: int, chunk: int) -> Any:
        """An array of text of any length."""
        made = self._group.create_dataset(path, (n,), h5py.string_dtype(), chunks=_fitting((chunk,), (n,)))
        made.attrs.update(STRINGS)
        return made

    def group(self, path: str, **attributes: Any) -> None:
        """A group with attributes."""
        self._group.require_group(path).attrs.update({k: _texts(v) for k, v in attributes.items()})

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
        """An array."""
        return self._group.create_array(
            path, shape=shape, dtype=dtype, chunks=_fitting(chunks, shape), attributes=dict(ARRAY)
        )

    def strings(self, path: str, n: int, chunk: int) -> Any:
        """An array of text."""
        made = self._group.create_array(
            path, shape=(n,), dtype=np.dtypes.StringDType(), chunks=_fitting((chunk,), (n,)), attributes=dict(STRINGS)
        )
        return _AsStrings(made)

    def group(self, path: str, **attributes: Any) -> None:
        """A group with attributes."""
        self._group.require_group(path).attrs.update(attributes)

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


class Rows:
    """Appends rows to an array, a chunk at a time: written in parts, a chunk is compressed anew with each.

    Parameters
    ----------
    array
        The array, as long as it will be.
    chunk
        Rows of one of its chunks.
    columns
        Which of its columns; None where it has none, or all.
    """

    def __init__(self, array: Any, chunk: int, columns: slice | None = None) -> None:
        self._array, self._chunk, self._columns = array, chunk, columns
        self._held: NDArray[Any] | None = None
        self._written = 0

    def add(self, values: NDArray[Any]) -> None:
        """Append rows."""
        joined = values if self._held is None else np.concatenate([self._held, values])
        whole = len(joined) // self._chunk * self._chunk
        self._write(joined[:whole])
        self._held = joined[whole:].copy()

    def close(self) -> None:
        """Write what is left."""
        if self._held is not None:
            self._write(self._held)
            self._held = None

    def _write(self, values: NDArray[Any]) -> None:
        """Write rows, a chunk at a time: when a disk is full, nothing is still being written while it is removed."""
        for start in range(0, len(values), self._chunk):
            part = values[start : start + self._chunk]
            rows = slice(self._written, self._written + len(part))
            self._array[rows if self._columns is None else (rows, self._columns)] = part
            self._written += len(part)


def write_anndata(
    into: Group,
    request: Request,
    table: Table,
    obs: Sequence[Column],
    obsm: Sequence[Column],
    uns: Mapping[str, Any],
) -> None:
    """Write bins by genes.

    Parameters
    ----------
    into
        An empty group.
    request
        What is exported.
    table
        Its rows.
    obs, obsm
        What is known of every row.
    uns
        What is known of all of them.
    """
    n = table.rows
    into.group("/", **{"encoding-type": "anndata", "encoding-version": "0.1.0"})
    for name in ("layers", "obsp", "varm", "varp", "obsm"):
        into.group(name, **{"encoding-type": "dict", "encoding-version": "0.1.0"})
    into.element("var", _genes(request))
    into.element("uns", dict(uns))
    order = [column.name for column in obs]
    into.group(
        "obs", **{"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index", "column-order": order}
    )
    filled: list[Filled] = [(Rows(into.strings("obs/_index", n, ROWS_OF_COLUMNS), ROWS_OF_COLUMNS), index_of)]
    filled += [_column(into, f"obs/{column.name}", column, n) for column in obs]
    filled += [_column(into, f"obsm/{column.name}", column, n) for column in obsm]
    genes = _gene_rows(into, request, n)
    with request.told(len(table)) as done:
        for piece in table:
            for rows, of in filled:
                rows.add(of(piece))
            for writer, names in genes:
                writer.add(read_sums(request, names, piece.tile)[:, piece.there].T)
            done()
    for rows in (*(rows for rows, _ in filled), *(writer for writer, _ in genes)):
        rows.close()


def _gene_rows(into: Group, request: Request, n: int) -> list[tuple[Rows, tuple[str, ...]]]:
    """X, and who writes which of its columns."""
    x = into.array("X", (n, len(request.genes)), "float32", into.chunk)
    return [
        (Rows(x, into.chunk[0], slice(start, start + len(names))), names)
        for start, names in request.blocks(GENES_AT_ONCE)
    ]


def _column(into: Group, path: str, column: Column, n: int) -> Filled:
    if column.categories is not None:
        into.group(path, **{"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        into.element(f"{path}/categories", np.array(column.categories, dtype=object))
        path = f"{path}/codes"
    shape = (n, column.width) if column.width else (n,)
    array = into.array(path, shape, column.dtype, (ROWS_OF_COLUMNS, column.width)[: len(shape)])
    return Rows(array, ROWS_OF_COLUMNS), lambda piece: column.of(piece).astype(column.dtype)


def _genes(request: Request) -> pd.DataFrame:
    """What is known of the genes: how well each is predicted, where that was tested."""
    var = pd.DataFrame(index=pd.Index(list(request.genes), dtype=object))
    try:
        trust = request.run.trust
    except InputError:
        return var
    var["trust"] = pd.Categorical(trust["word"].reindex(var.index))
    var["trust_score"] = trust["score"].reindex(var.index).to_numpy(np.float32)
    return var


def about(request: Request) -> dict[str, Any]:
    """Where an export is from, for ``uns``."""
    from iscale import __version__

    return {
        "version": __version__,
        "values": "expected counts, summed over the tissue of a bin",
        "bin_um": request.bin_um,
        "pixel_size_um": request.grid.pixel_size_um,
    }
