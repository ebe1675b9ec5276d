"""Areas of tables: the corners of Xenium's cells or nuclei, outlines of selections, and the middles of spots."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from iscale.captures.locations import ID_NAMES, read_locations, read_text_table
from iscale.captures.readers.blocks import column_named, csv_blocks, number_columns, parquet_blocks, parquet_header
from iscale.captures.readers.files import lines
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

SELECTION, OUTLINE = "Selection", ("X", "Y")
SELECTION_NAME = "#Selection name:"
"""Columns of the outlines of Xenium Explorer's selections, and the line that names the one of a file of one."""

RADIUS = "radius"
SIDES = 64
"""A disc is drawn as a polygon of so many sides and of its area."""


def header(path: Path) -> list[str]:
    """Names of the columns of a table in Parquet or CSV."""
    if path.name.lower().endswith(".parquet"):
        return parquet_header(path)
    return next(_csv_rows(path)[1], [])


def is_boundaries(path: Path) -> bool:
    """Whether a table has corners."""
    return any(name in header(path) for name in CORNERS)


def is_selections(path: Path) -> bool:
    """Whether a CSV file holds outlines as Xenium Explorer exports them, with its notes or the selections' names."""
    names = header(path)
    return set(OUTLINE) <= set(names) and (SELECTION in names or bool(_csv_rows(path)[0]))


def _csv_rows(path: Path) -> tuple[list[str], Iterator[list[str]]]:
    """The notes that stand before the header of a CSV file, each after a ``#``, and its rows, the header first.

    What stands between the cells is told by the header: commas, semicolons or tabs.
    """
    text = lines(path)
    notes, first = list[str](), ""
    for line in text:
        if not line.lstrip('\ufeff"').startswith("#"):
            first = line
            break
        notes.append(line)
    separator = max(",;\t", key=first.count)

    def rows() -> Iterator[list[str]]:
        yield [name.strip() for name in next(csv.reader([first.lstrip("\ufeff")], delimiter=separator), [])]
        yield from (row for row in csv.reader(text, delimiter=separator) if row)

    return notes, rows()


def _csv_table(path: Path) -> tuple[list[str], pd.DataFrame]:
    """Notes of a CSV file, and its table, every cell as it is written."""
    notes, rows = _csv_rows(path)
    names = next(rows)
    body = list(rows)
    ragged = next((i for i, row in enumerate(body) if len(row) != len(names)), None)
    if ragged is not None:
        raise InputError(
            f"{path}: row {ragged + 1} has {len(body[ragged])} cells, the header names {len(names)} columns.",
            "Write the table again; it may have been cut off.",
        )
    return notes, pd.DataFrame(body, columns=names)


def _positions(path: Path, table: pd.DataFrame, x: str, y: str) -> NDArray[np.float64]:
    """(row, 2) x, y of a table of text, finite."""
    if table.empty:
        raise nothing_there(str(path), f"Give rows with {x} and {y}.")
    xy = np.column_stack([pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64) for name in (x, y)])
    bad = np.flatnonzero(~np.isfinite(xy).all(axis=1))
    if len(bad):
        at = ", ".join(str(table[name].iloc[bad[0]]) for name in (x, y))
        raise InputError(
            f"{path}: {len(bad):,} of {len(xy):,} rows have no position, the first is row {bad[0] + 1}: ({at}).",
            "Give every row a position, or take it out of the file.",
        )
    return xy


def read_selections(path: Path) -> Iterator[Block]:
    """Outlines that Xenium Explorer exports: ``X``, ``Y`` in um, those of a ``Selection`` one after the other."""
    notes, table = _csv_table(path)
    xy = _positions(path, table, *OUTLINE)
    if SELECTION in table.columns:
        runs = [(str(name), len(list(rows))) for name, rows in groupby(table[SELECTION])]
    else:
        told = [note.partition(":")[2] for note in notes if note.strip('"').startswith(SELECTION_NAME)]
        runs = [(told[0].strip(' "') if told else path.name.split(".")[0], len(xy))]
    starts = np.cumsum([0, *(n for _, n in runs)])
    each = np.arange(len(runs) + 1, dtype=np.int64)
    yield Block([name for name, _ in runs], Rings(xy, starts, each, each))


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
    """Discs of a table with an id, ``x`` and ``y``: ``.tsv``, ``.csv`` (``.gz`` too) or ``.parquet``.

    Their radius is in the unit of the positions; it is None where the table has a column ``radius``, or a
    ``radius.txt`` of that unit lies beside it.
    """
    ids, xy = _csv_spots(path) if _is_csv(path) else _listed_spots(path)
    radii = np.full(len(ids), radius) if radius is not None else _radii(path)
    for first in range(0, len(radii), AREAS_AT_ONCE):
        part = slice(first, first + AREAS_AT_ONCE)
        yield Block(ids[part], simple_rings(_discs(xy[part], radii[part])))


def _is_csv(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(".csv")


def _listed_spots(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    found = read_locations(path)
    return found.ids, found.xy


def _csv_spots(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Ids, empty where there are none, and positions of a CSV file's rows: columns are found as in ``locs.tsv``."""
    _, table = _csv_table(path)
    names = [str(name) for name in table.columns]
    x, y = column_named(names, "x"), column_named(names, "y")
    if x is None or y is None:
        raise InputError(f"{path} has no columns x and y (it has: {', '.join(names[:6])}).", "Name them in its header.")
    others = [name for name in names if name not in (x, y) and name.lower() != RADIUS]
    named = column_named(names, *ID_NAMES) or next(iter(others), None)
    ids = [""] * len(table) if named is None else table[named].tolist()
    return ids, _positions(path, table, x, y)


def _radii(path: Path) -> NDArray[np.float64]:
    if _is_csv(path):
        table = _csv_table(path)[1]
    else:
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
