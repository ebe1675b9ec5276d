"""Positions of Space Ranger's spots and bins: CSV with or without a header, or Parquet, read in batches."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.vendors.files import blocks
from iscale.vendors.lattice import LatticeFit

POSITIONS = tuple(
    f"spatial/{name}" for name in ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
)
COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
TYPES = dict(zip(COLUMNS, (str, np.int64, np.int64, np.int64, np.float64, np.float64), strict=True))
ROWS_AT_ONCE = 1 << 18
REMEDY = "Give the folder as Space Ranger wrote it (outs)."


@dataclass(frozen=True)
class Positions:
    """Positions of the barcodes asked for; rows of those not ``found`` mean nothing.

    Attributes
    ----------
    found
        (barcode,) whether the file has it.
    array
        (barcode, 3) int64: in_tissue, array_row, array_col.
    xy_px
        (barcode, 2) float64: x = pxl_col, y = pxl_row in full-resolution pixels.
    um_per_px
        By the lattice of all rows of the file; None where they span none.
    """

    found: NDArray[np.bool_]
    array: NDArray[np.int64]
    xy_px: NDArray[np.float64]
    um_per_px: float | None


def read_positions(path: Path, barcodes: list[str], step_um: tuple[float, float]) -> Positions:
    """Read positions in batches, of which only the rows of these barcodes are kept.

    Parameters
    ----------
    path
        Parquet, or CSV with a header (from version 2) or without.
    barcodes
        Those asked for; unique.
    step_um
        One step of ``array_col`` and of ``array_row``, in um.

    Raises
    ------
    InputError
        The file is damaged, lacks a column, or has a barcode asked for twice or at no finite position.
    """
    index = pd.Index(barcodes, dtype=object)
    found = np.zeros(len(index), bool)
    array, xy_px = np.zeros((len(index), 3), np.int64), np.zeros((len(index), 2))
    lattice = LatticeFit()
    for batch in _parquet_batches(path) if path.suffix == ".parquet" else _csv_batches(path):
        xy = batch[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(np.float64)
        lattice.add(batch[["array_col", "array_row"]].to_numpy(np.float64) * step_um, xy)
        at = index.get_indexer(pd.Index(batch["barcode"], dtype=object))
        rows = np.flatnonzero(at >= 0)
        at = at[rows]
        twice = found[at] | pd.Index(at).duplicated()
        if twice.any():
            raise InputError(f"{path} has more than one position for {barcodes[at[twice][0]]!r}.", REMEDY)
        bad = ~np.isfinite(xy[rows]).all(axis=1)
        if bad.any():
            raise InputError(f"{path}: the position of {barcodes[at[bad][0]]!r} is not finite.", REMEDY)
        found[at], xy_px[at] = True, xy[rows]
        array[at] = batch[list(COLUMNS[1:4])].to_numpy(np.int64)[rows]
    fitted = lattice.similarity()
    return Positions(found, array, xy_px, None if fitted is None else fitted.um_per_px)


def _parquet_batches(path: Path) -> Iterator[pd.DataFrame]:
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, list(file.schema_arrow.names))
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(COLUMNS)):
                yield batch.to_pandas().astype(TYPES)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read as positions: {str(error).splitlines()[0]}", REMEDY) from None


def _csv_batches(path: Path) -> Iterator[pd.DataFrame]:
    """Batches of a table with a header (from version 2) or without; told by whether the first row has numbers."""
    names = list(COLUMNS)
    for number, block in enumerate(blocks(path)):
        if number == 0:
            first = block.partition(b"\n")[0].decode(errors="replace").removeprefix("\ufeff")
            fields = [field.strip().strip('"') for field in first.split(",")]
            if not fields[1:2] or not fields[1].isdigit():
                _check_columns(path, names := fields)
                block = block.partition(b"\n")[2]
        if not block.strip():
            continue
        try:
            table = pd.read_csv(
                io.BytesIO(block), header=None, keep_default_na=False, dtype={0: str}, float_precision="round_trip"
            )
            if table.shape[1] != len(names):
                raise ValueError(f"{table.shape[1]} columns, not {len(names)}")
            yield table.set_axis(names, axis=1).astype(TYPES)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{path} cannot be read as positions: {str(error).splitlines()[0]}", REMEDY) from None


def _check_columns(path: Path, names: list[str]) -> None:
    missing = [name for name in COLUMNS if names.count(name) != 1]
    if missing:
        raise InputError(
            f"{path} is no table of positions: it lacks {', '.join(missing)}; its columns are {', '.join(names[:8])}.",
            REMEDY,
        )
