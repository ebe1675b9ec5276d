"""Boundaries of Xenium's cells or nuclei: a table of their corners, those of a cell one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from iscale.captures.readers.blocks import csv_blocks, csv_header, number_columns, parquet_blocks, parquet_header
from iscale.export.areas.areas import AREAS_AT_ONCE, Block, Rings, nothing_there

CORNERS = ("vertex_x", "vertex_y")
CELL, LABEL = "cell_id", "label_id"
"""A cell may have several nuclei, which ``label_id`` tells apart where the file has it."""

REMEDY = "Give the cell_boundaries.parquet, or .csv.gz, as the instrument's software wrote it."

Corners = tuple[NDArray[np.object_], NDArray[np.int64], NDArray[np.float64]]
"""Of every corner its cell's name, its label, and x, y."""


def header(path: Path) -> list[str]:
    """Names of the columns of a table in Parquet or CSV."""
    return parquet_header(path) if path.name.lower().endswith(".parquet") else csv_header(path)


def is_boundaries(path: Path) -> bool:
    """Whether a table has corners."""
    return any(name in header(path) for name in CORNERS)


def read_boundaries(path: Path) -> Iterator[Block]:
    """Areas of a table of corners, in its order.

    Raises
    ------
    InputError
        A column is missing, or a corner is no number.
    """
    empty = True
    held: Corners | None = None
    for ids, labels, xy in _corners(path):
        if held is not None:
            ids, labels, xy = (np.concatenate(both) for both in zip(held, (ids, labels, xy), strict=True))
        begins = np.flatnonzero((ids[1:] != ids[:-1]) | (labels[1:] != labels[:-1])) + 1
        last = int(begins[-1]) if len(begins) else 0  # the last cell may go on in the next rows
        held = ids[last:], labels[last:], xy[last:]
        empty = False
        yield from _blocks(np.concatenate([[0], begins[begins <= last]]), ids, xy)
    if empty or held is None:
        raise nothing_there(str(path), REMEDY)
    yield from _blocks(np.array([0, len(held[0])]), held[0], held[2])


def _blocks(starts: NDArray[np.int64], ids: NDArray[np.object_], xy: NDArray[np.float64]) -> Iterator[Block]:
    for first in range(0, len(starts) - 1, AREAS_AT_ONCE):
        own = starts[first : first + AREAS_AT_ONCE + 1]
        each = np.arange(len(own), dtype=np.int64)
        yield Block([str(i) for i in ids[own[:-1]]], Rings(xy[own[0] : own[-1]], own - own[0], each, each))


def _corners(path: Path) -> Iterator[Corners]:
    labelled = LABEL in header(path)
    columns = [CELL, *CORNERS, *[LABEL] * labelled]
    if path.name.lower().endswith(".parquet"):
        tables = parquet_blocks(path, columns)
    else:
        types = {CELL: pa.string(), LABEL: pa.int64()}
        tables = csv_blocks(path, {name: types.get(name, pa.float64()) for name in columns})
    for table in tables:
        if table.num_rows:
            labels = number_columns(table, [LABEL], path)[:, 0].astype(np.int64) if labelled else None
            yield (
                _names(table.column(CELL)),
                np.zeros(table.num_rows, np.int64) if labels is None else labels,
                number_columns(table, CORNERS, path),
            )


def _names(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Names as text; old files have numbers, and bytes where Parquet does not say that they are text."""
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        column = column.cast(pa.string())
    codes = column.combine_chunks().dictionary_encode()
    names = np.array([str(value) for value in codes.dictionary.to_pylist()], dtype=object)
    return np.asarray(pd.Series(names).take(codes.indices.to_numpy(zero_copy_only=False)).to_numpy())
