"""Areas of tables: the corners of Xenium's cells or nuclei, and the middles of spots."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from iscale.captures.locations import read_locations, read_text_table
from iscale.captures.readers.blocks import csv_blocks, csv_header, number_columns, parquet_blocks, parquet_header
from iscale.errors import InputError
from iscale.export.areas.areas import AREAS_AT_ONCE, Block, Rings, nothing_there, simple_rings
from iscale.project.files import read_number
from iscale.project.layout import optional_file

CORNERS = ("vertex_x", "vertex_y")
CELL, LABEL = "cell_id", "label_id"
"""A cell may have several nuclei, which ``label_id`` tells apart where the file has it."""

AS_WRITTEN = "Give the cell_boundaries.parquet, or .csv.gz, as the instrument's software wrote it."

Corners = tuple[NDArray[np.object_], NDArray[np.int64], NDArray[np.float64]]
"""Of every corner its cell's name, its label, and x, y."""

RADIUS = "radius"
SIDES = 64
"""A disc is drawn as a polygon of so many sides and of its area."""


def header(path: Path) -> list[str]:
    """Names of the columns of a table in Parquet or CSV."""
    return parquet_header(path) if path.name.lower().endswith(".parquet") else csv_header(path)


def is_boundaries(path: Path) -> bool:
    """Whether a table has corners."""
    return any(name in header(path) for name in CORNERS)


def read_boundaries(path: Path) -> Iterator[Block]:
    """Areas of a table of corners, those of an area one after the other, in its order."""
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
        raise nothing_there(str(path), AS_WRITTEN)
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


def read_spots(path: Path, radius: float | None) -> Iterator[Block]:
    """Discs of a table with an id, ``x`` and ``y``: ``.tsv``, ``.tsv.gz`` or ``.parquet``, as a project's ``locs.*``.

    Their radius is in the unit of the positions; it is None where the table has a column ``radius``, or a
    ``radius.txt`` of that unit lies beside it.
    """
    found = read_locations(path)
    radii = np.full(len(found.ids), radius) if radius is not None else _radii(path)
    for first in range(0, len(radii), AREAS_AT_ONCE):
        part = slice(first, first + AREAS_AT_ONCE)
        yield Block(found.ids[part], simple_rings(_discs(found.xy[part], radii[part])))


def _radii(path: Path) -> NDArray[np.float64]:
    table = pd.read_parquet(path) if path.name.lower().endswith(".parquet") else read_text_table(path)
    named = [name for name in table.columns if str(name).lower() == RADIUS]
    if named:
        radii = pd.to_numeric(table[named[0]], errors="coerce").to_numpy(np.float64)
        bad = ~(np.isfinite(radii) & (radii > 0))
        if bad.any():
            raise InputError(
                f"{path}: {int(bad.sum())} of {len(radii)} spots have no radius above 0.",
                "Give every spot a radius, or all the same with --radius-um.",
            )
        return np.asarray(radii, np.float64)
    beside = optional_file(path.parent / "radius.txt")
    if beside is None:
        raise InputError(
            f"{path}: the spots' radius is not known: there is no column {RADIUS}, and no radius.txt beside it.",
            f"Give it in um, as --radius-um 27.5 for Visium, or write a column {RADIUS} in the unit of x and y.",
        )
    return np.full(len(table), read_number(beside))


def _discs(xy: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners (disc, corner, 2) of polygons that have the discs' areas."""
    angle = 2 * np.pi * np.arange(SIDES) / SIDES
    reach = radii * math.sqrt(2 * math.pi / (SIDES * math.sin(2 * math.pi / SIDES)))
    corners = xy[:, None] + reach[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return np.asarray(corners, np.float64)
