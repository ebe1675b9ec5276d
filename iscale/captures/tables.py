"""Count tables of any accepted format, as a sparse matrix with the names of its rows and columns.

Nothing here knows what is a spot and what a gene: ``iscale.captures.read`` decides that by the ids of the locations.
A table is never held dense, nor whole where it is large: text is read line by line, Parquet by groups of columns,
AnnData by groups of rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from anndata.io import read_elem
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.counts import Counts, CountsWriter, Entries
from iscale.captures.readers.anndata_group import read_matrix
from iscale.captures.readers.blocks import cell_bounds, cell_numbers, parquet_errors
from iscale.captures.readers.files import byte_lines
from iscale.errors import InputError
from iscale.words import by

ROWS_AT_ONCE = 64
COLUMNS_AT_ONCE = 512
CELLS_AT_ONCE = 8 << 20
COUNTS_REMEDY = "Give raw counts: whole numbers, 0 or more, in every cell."


@dataclass(frozen=True)
class CountTable:
    """A table of counts as it lies in its file: names as written, not checked for duplicates; (row, column) float32.

    Counts are finite and not negative.
    """

    rows: list[str]
    columns: list[str]
    counts: Counts


def read_counts(path: Path) -> CountTable:
    """Read ``cnts.tsv``, ``cnts.tsv.gz``, ``cnts.parquet`` or ``cnts.h5ad``.

    An InputError where the file is damaged or not such a table, or a cell is no finite number of 0 or more.
    """
    if path.name.lower().endswith(".parquet"):
        table = _read_parquet(path)
    elif path.name.lower().endswith(".h5ad"):
        table = _read_h5ad(path)
    else:
        table = _read_tsv(path)
    if not table.rows or not table.columns:
        raise InputError(
            f"{path} holds {len(table.rows)} rows and {len(table.columns)} columns of counts.",
            "Give a table of counts with spots and genes.",
        )
    return table


def decode(path: Path, raw: bytes) -> str:
    """Text of a field, without the quotes that R writes; an InputError where it is not UTF-8."""
    try:
        return raw.decode().strip().strip('"')
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file.", "Write it as tab-separated UTF-8 text.") from None


def _read_tsv(path: Path) -> CountTable:
    lines = byte_lines(path, None)
    header, first = next(lines, None), next(lines, None)
    if header is None or first is None:
        raise InputError(f"{path} holds no counts: it ends after {header is not None:d} lines.", "Write it again.")
    if b"\t" not in header:
        found = next(
            (name for sep, name in ((b",", "commas"), (b";", "semicolons"), (b" ", "blanks")) if sep in first), ""
        )
        problem = f"looks separated by {found}" if found else "has only one column"
        raise InputError(f"{path} is not separated by tabs: it {problem}.", "Write it with tabs between the columns.")
    columns = [decode(path, field) for field in header.split(b"\t")]
    if len(columns) == first.count(b"\t") + 1:  # else R's way, without a name above the ids
        columns = columns[1:]
    return _tsv_rows(path, columns, first, lines)


def _tsv_rows(path: Path, columns: list[str], first: bytes, lines: Iterator[bytes]) -> CountTable:
    rows: list[str] = []

    def cells() -> Iterator[NDArray[np.float32]]:
        for line in chain([first], lines):
            name, _, rest = line.partition(b"\t")
            rows.append(decode(path, name))
            yield _parse_cells(path, rest, rows, columns)

    counts = CountsWriter(len(columns))
    counts.add_rows(cells(), ROWS_AT_ONCE)
    return CountTable(rows, columns, counts.done())


def _parse_cells(path: Path, line: bytes, rows: list[str], columns: list[str]) -> NDArray[np.float32]:
    """Numbers of one line."""
    starts, ends = cell_bounds(line, b"\t")
    if len(ends) != len(columns):
        raise InputError(
            f"{path}: row {len(rows)} ({rows[-1]!r}) has {len(ends)} cells, the header names {len(columns)} columns.",
            "Write the table again; it may have been cut off.",
        )

    def number(at: int, cell: bytes) -> float:
        try:
            return float(cell)
        except ValueError:
            shown = repr(cell.decode(errors="replace")[:40]) if cell.strip() else "empty"
            _refuse_cell(path, rows[-1], columns[at], f"{shown}, not a number")

    row = cell_numbers(line, starts, ends, number)
    _check_cells(path, row[None], rows[-1:], columns)
    return row


def _check_cells(path: Path, values: NDArray[Any], rows: list[str], columns: list[str]) -> None:
    """Refuse numbers that are not finite or below 0, in a (row, column) block."""
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        more = int(bad.sum()) - 1
        shown = f"{values[row, column]:g}" + (f" (and {more} more cells like it)" if more else "")
        _refuse_cell(path, rows[row], columns[column], shown)


def _refuse_cell(path: Path, row: str, column: str, shown: str) -> NoReturn:
    raise InputError(f"{path}: the count in row {row!r}, column {column!r} is {shown}.", COUNTS_REMEDY)


def _read_parquet(path: Path) -> CountTable:
    with parquet_errors(path, "Write it again."):
        file = pq.ParquetFile(path)
        names = list(file.schema_arrow.names)
        id_column = _parquet_id_column(file.schema_arrow)
        rows = [str(v) for v in file.read(columns=[id_column]).column(0).to_pylist()]
        columns = [name for name in names if name != id_column]
        counts = Entries((len(rows), len(columns)))
        step = max(1, min(COLUMNS_AT_ONCE, CELLS_AT_ONCE // max(1, len(rows))))
        for at in range(0, len(columns), step):
            part = columns[at : at + step]
            block = sparse.coo_matrix(_parquet_block(path, file.read(columns=part), rows, part))
            counts.add(block.row, block.col + at, block.data)
    if not columns:
        raise InputError(f"{path} has no columns beside the ids.", "Give a table of counts with spots and genes.")
    return CountTable(rows, columns, counts.counts())


def _parquet_id_column(schema: pa.Schema) -> str:
    """The index that pandas wrote, else the first column."""
    pandas = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    stored = [c for c in pandas.get("index_columns", []) if isinstance(c, str)]
    return stored[0] if stored else str(schema.names[0])


def _parquet_block(path: Path, block: pa.Table, rows: list[str], columns: list[str]) -> NDArray[np.float32]:
    for name, column in zip(columns, block.columns, strict=True):
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise InputError(f"{path}: column {name!r} holds {column.type}, not numbers.", COUNTS_REMEDY)
    values = np.column_stack([column.to_numpy().astype(np.float32) for column in block.columns])
    _check_cells(path, values, rows, columns)
    return np.asarray(values)


def _read_h5ad(path: Path) -> CountTable:
    def check(values: NDArray[Any], row: NDArray[Any], column: NDArray[Any]) -> NDArray[np.float32]:
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(bad):
            more = f" (and {len(bad) - 1} more cells like it)" if len(bad) > 1 else ""
            _refuse_cell(path, rows[row[bad[0]]], columns[column[bad[0]]], f"{values[bad[0]]:g}{more}")
        return values.astype(np.float32)

    try:
        with h5py.File(path, "r") as file:
            rows, columns = ([str(name) for name in read_elem(file[axis]).index] for axis in ("obs", "var"))
            counts = read_matrix(file["X"], check)
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as AnnData: {error}", "Write it with anndata, with the counts in X."
        ) from None
    if counts.shape != (len(rows), len(columns)):
        raise InputError(
            f"{path}: X is {by(counts.shape)}, obs x var is {by((len(rows), len(columns)))}.", "Write it again."
        )
    return CountTable(rows, columns, counts)
