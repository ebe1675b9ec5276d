"""Tables of any length in blocks of rows, from CSV or Parquet, and their cells matched between files.

A table of transcripts has up to billions of rows and is never held: memory is that of one block.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from iscale.captures.readers.files import blocks, lines
from iscale.errors import InputError

ROWS_AT_ONCE = 1 << 18
AGAIN = "Copy or export the file again."


def csv_header(path: Path) -> list[str]:
    """Names of the columns of a CSV file, as its first line has them, without quotes."""
    return [name.strip().strip('"') for name in next(lines(path), "").split(",")]


def column_named(header: list[str], *names: str) -> str | None:
    """The column of one of these names, whatever its case; the exact one where there are several."""
    for name in names:
        found = [column for column in header if column.lower() == name.lower()]
        if found:
            return name if name in found else found[0]
    return None


def csv_blocks(path: Path, columns: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    """Some columns of a CSV file with a header (``.gz`` too), in blocks of rows; all cells are of their type."""
    header = csv_header(path)
    _check_columns(path, header, list(columns))
    parse = pa_csv.ConvertOptions(column_types=dict(columns), include_columns=list(columns))
    before = 0
    for block in blocks(path):
        if before == 0:  # the header has been read: it must not be taken for a row
            block = block.lstrip(b"\xef\xbb\xbf\r\n").partition(b"\n")[2]
            before = 1
        read = pa_csv.ReadOptions(column_names=header, use_threads=False, block_size=len(block) + 1)
        try:
            table = pa_csv.read_csv(pa.BufferReader(block), read, convert_options=parse) if block.strip() else None
        except pa.ArrowException as error:
            raise InputError(f"{path}: {_where(str(error), header, before)}", AGAIN) from None
        before += block.count(b"\n")
        if table is not None:
            yield table


def parquet_blocks(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of a Parquet file, in blocks of rows."""
    _check_columns(path, parquet_header(path), list(columns))
    with parquet_errors(path), pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(columns), use_threads=False):
            yield pa.Table.from_batches([batch])


def parquet_header(path: Path) -> list[str]:
    """Names of the columns of a Parquet file."""
    with parquet_errors(path):
        return list(pq.read_schema(path).names)


@contextmanager
def parquet_errors(path: Path, remedy: str = AGAIN) -> Iterator[None]:
    """Turn what a damaged Parquet file raises into an InputError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}", remedy) from None


def cell_bounds(line: bytes, separator: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the cells of a line begin and end."""
    ends = np.append(np.flatnonzero(np.frombuffer(line, np.uint8) == ord(separator)), len(line))
    return np.append(0, ends[:-1] + 1), ends


def cell_numbers(
    line: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], number: Callable[[int, bytes], float]
) -> NDArray[np.float32]:
    """(cell,) numbers of a line's cells, of which nearly all are one digit; ``number`` reads the others."""
    text = np.frombuffer(line + b" ", np.uint8)
    digit = text[starts].astype(np.int16) - ord("0")
    simple = (ends - starts == 1) & (digit >= 0) & (digit <= 9)
    values = np.where(simple, digit, 0).astype(np.float32)
    for at in np.flatnonzero(~simple).tolist():
        values[at] = number(at, line[starts[at] : ends[at]])
    return values


def numbers(table: pa.Table, name: str, source: Path) -> NDArray[np.float64]:
    """A column (row,) of numbers; an InputError where cells are empty, not finite or not numbers."""
    column = table.column(name)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InputError(f"{source}: column {name!r} holds {column.type}, not numbers.", AGAIN)
    values = np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float64)
    if bad := int((~np.isfinite(values)).sum()):
        raise InputError(f"{source}: {bad:,} cells of column {name!r} are empty or not finite numbers.", AGAIN)
    return values


def numbers_if_any(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column (row,) that can be done without, in which all that is no number is NaN."""
    values = pd.to_numeric(table.column(name).to_pandas(), errors="coerce").to_numpy(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def number_columns(table: pa.Table, names: Sequence[str], source: Path) -> NDArray[np.float64]:
    """Columns (row, column) of finite numbers, as :func:`numbers` reads each."""
    return np.column_stack([numbers(table, name, source) for name in names])


def _check_columns(path: Path, header: list[str], wanted: list[str]) -> None:
    if missing := [name for name in wanted if name not in header]:
        raise InputError(
            f"{path} has no column {', '.join(missing)} (it has: {', '.join(header[:12])}).",
            "Give the file as the instrument's software wrote it.",
        )
    if twice := [name for name in wanted if header.count(name) > 1]:
        raise InputError(f"{path} has the column {twice[0]} {header.count(twice[0])} times.", AGAIN)


def _where(message: str, header: list[str], before: int) -> str:
    """Arrow's message of a bad cell, with the column's name, and the row counted in the file."""
    message = re.sub(r"Row #(\d+)", lambda found: f"row {int(found[1]) + before}", message)
    return re.sub(
        r"In CSV column #(\d+): ",
        lambda found: f"column {header[int(found[1])]!r}: " if int(found[1]) < len(header) else "",
        message,
    )


def in_both(
    counts_file: Path, count_ids: list[str], cells_file: Path, cell_ids: list[str]
) -> tuple[NDArray[np.intp], NDArray[np.intp], tuple[str, ...]]:
    """Rows of cells that have both counts and a position, in the two files and the counts' order; what is left out.

    An InputError where a cell comes twice in a file, or more than half of either file's cells are not in the other.
    """
    for path, ids in ((counts_file, count_ids), (cells_file, cell_ids)):
        if len(set(ids)) < len(ids):
            twice = next(cell for cell, times in Counter(ids).items() if times > 1)
            raise InputError(
                f"{path} has {len(ids):,} cells, {len(ids) - len(set(ids)):,} of them again, such as {twice!r}.",
                "Give the file of one section, in which every cell comes once.",
            )
    places = pd.Index(cell_ids, dtype=object).get_indexer(pd.Index(count_ids, dtype=object))
    rows = np.flatnonzero(places >= 0)
    if 2 * len(rows) < max(len(count_ids), len(cell_ids)) or len(rows) == 0:
        raise InputError(
            f"{counts_file.name} has {len(count_ids):,} cells, {cells_file.name} {len(cell_ids):,}, and only "
            f"{len(rows):,} are in both (of {counts_file.parent}).",
            "Give the files of the same section and the same segmentation.",
        )
    notices = [
        f"{missing:,} of {len(ids):,} cells of {path.name} are left out: {other.name} does not have them."
        for path, ids, other in ((counts_file, count_ids, cells_file), (cells_file, cell_ids, counts_file))
        if (missing := len(ids) - len(rows))
    ]
    return rows, places[rows], tuple(notices)
