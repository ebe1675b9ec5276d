"""Counts per cell of CosMx: one CSV file with a column per gene, read a line at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.errors import InputError
from iscale.vendors.blocks import column_named, csv_header
from iscale.vendors.cosmx_frame import AGAIN
from iscale.vendors.counts import Counts, CountsWriter
from iscale.vendors.files import blocks

CONTROL = re.compile("NegPrb|Negative|SystemControl|FalseCode")
ROWS_AT_ONCE = 256
NO_GENES = {"", "fov", "cell_id", "cell", "slide_id", "slide_id_numeric", "run_tissue_name"}


def genes_of(header: list[str]) -> list[str]:
    """Those columns of a matrix of cells that are genes."""
    return [name for name in header if name.lower() not in NO_GENES and not CONTROL.match(name)]


def cell_id(fov: str, cell: str) -> str | None:
    """Id of a cell, unique in the section: ``fov_cell``, or the file's own where it has such; None for background.

    >>> cell_id("3", "17"), cell_id("3", "c_1_3_17"), cell_id("3", "0")
    ('3_17', 'c_1_3_17', None)
    """
    if cell.rpartition("_")[2] == "0":
        return None
    return cell if "_" in cell else f"{fov}_{cell}"


def read_matrix(path: Path) -> tuple[list[str], list[str], Counts, tuple[str, ...]]:
    """Read a matrix of cells, one line of the file at a time.

    Returns
    -------
    tuple
        Ids of the cells, genes, (cell, gene) float32 counts, and notices of what is left out.

    Raises
    ------
    InputError
        It has no genes or no columns that name the cells, a line is cut off, or a count is not finite or below 0.
    """
    header = csv_header(path)
    at = [column_named(header, name) for name in ("fov", "cell_ID")]
    genes = genes_of(header)
    if None in at or not genes:
        raise InputError(
            f"{path} has {len(genes):,} genes and begins with {', '.join(header[:8])}; fov, cell_ID and genes are due.",
            AGAIN,
        )
    wanted = np.flatnonzero([name.lower() not in NO_GENES and not CONTROL.match(name) for name in header])
    fov_at, cell_at = (header.index(str(name)) for name in at)
    ids: list[str] = []
    counts = CountsWriter(len(genes))
    rows: list[NDArray[np.float32]] = []
    background = 0
    for number, line in _rows(path):
        ends = _ends(path, number, line, len(header))
        starts = np.append(0, ends[:-1] + 1)
        fov, cell = (line[starts[i] : ends[i]].decode(errors="replace").strip(' "') for i in (fov_at, cell_at))
        name = cell_id(fov, cell)
        if name is None:
            background += 1
            continue
        rows.append(_cells(path, line, starts[wanted], ends[wanted], f"{number} (cell {name})", genes))
        ids.append(name)
        if len(rows) == ROWS_AT_ONCE:
            counts.add(sparse.csr_matrix(np.stack(rows)))
            rows = []
    if rows:
        counts.add(sparse.csr_matrix(np.stack(rows)))
    controls = len([name for name in header if CONTROL.match(name)])
    notices = [f"{controls} of {len(genes) + controls} columns are controls and left out."] * (controls > 0)
    if background:
        notices.append(f"{background} rows of counts outside of cells (cell_ID 0) are left out.")
    return ids, genes, counts.done(), tuple(notices)


def _rows(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines after the header that are not blank, with their number in the file, counted without blank ones."""
    number = 0
    for block in blocks(path):
        for line in block.split(b"\n"):
            if line := line.rstrip(b"\r"):
                number += 1
                if number > 1:
                    yield number, line


def _ends(path: Path, number: int, line: bytes, n_columns: int) -> NDArray[np.int64]:
    """Where the cells of a line end."""
    ends = np.append(np.flatnonzero(np.frombuffer(line, np.uint8) == ord(",")), len(line))
    if len(ends) != n_columns:
        raise InputError(
            f"{path}: line {number} has {len(ends)} cells, the header names {n_columns} columns.",
            "Copy the file again; it may have been cut off.",
        )
    return ends


def _cells(
    path: Path, line: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], row: str, genes: list[str]
) -> NDArray[np.float32]:
    """Counts of one line. Nearly all cells are one digit, which needs no parser."""
    text = np.frombuffer(line + b",", np.uint8)
    digit = text[starts].astype(np.int16) - ord("0")
    simple = (ends - starts == 1) & (digit >= 0) & (digit <= 9)
    counts = np.where(simple, digit, 0).astype(np.float32)
    for at in np.flatnonzero(~simple).tolist():
        cell = line[starts[at] : ends[at]].decode(errors="replace").strip(' "')
        try:
            counts[at] = float(cell)
        except ValueError:
            counts[at] = math.nan
        if not (np.isfinite(counts[at]) and counts[at] >= 0):
            raise InputError(
                f"{path}: the count in line {row}, column {genes[at]!r} is {cell[:40]!r}.",
                "Give raw counts: whole numbers, 0 or more, in every cell.",
            )
    return counts
