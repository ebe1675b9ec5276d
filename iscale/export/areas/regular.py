"""Areas that follow from numbers alone: discs of a table of spots, and square bins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iscale.captures.locations import read_locations, read_text_table
from iscale.errors import InputError
from iscale.export.areas.areas import AREAS_AT_ONCE, Block, simple_rings
from iscale.geometry import Region, SlideGrid
from iscale.project.files import read_number
from iscale.project.layout import optional_file

CORNERS = 64
"""A disc is drawn as a polygon of so many corners and of its area."""

RADIUS = "radius"
SMALLEST_BIN_UM = 1.0

OnTissue = Callable[[Region], NDArray[np.bool_]]


def read_spots(path: Path, radius: float | None) -> Iterator[Block]:
    """Discs of a table with an id, ``x`` and ``y``.

    Parameters
    ----------
    path
        ``.tsv``, ``.tsv.gz`` or ``.parquet``, as a project's ``locs.*``.
    radius
        Of the discs, in the unit of the positions; None where the table has a column ``radius``, or a ``radius.txt`` of
        that unit lies beside it.

    Raises
    ------
    InputError
        A column is missing, a position or radius is no number, or the radius is not known.
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
    angle = 2 * np.pi * np.arange(CORNERS) / CORNERS
    reach = radii * math.sqrt(2 * math.pi / (CORNERS * math.sin(2 * math.pi / CORNERS)))
    corners = xy[:, None] + reach[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return np.asarray(corners, np.float64)


def bin_side(text: str, grid: SlideGrid) -> float:
    """Side in um of ``bins:16``.

    Raises
    ------
    InputError
        It is no number, or out of reason.
    """
    given = text.partition(":")[2].removesuffix("um")
    try:
        side = float(given)
    except ValueError:
        side = math.nan
    longest = max(grid.content_shape_px) * grid.pixel_size_um
    if not SMALLEST_BIN_UM <= side <= longest:
        raise InputError(
            f"{text}: the side of the bins is {given!r}; {SMALLEST_BIN_UM:g} to {longest:.0f} um are possible here.",
            f"Write it in um, as bins:16. A superpixel is {grid.superpixel_um:g} um wide.",
        )
    return side


def square_bins(side_um: float, grid: SlideGrid, on_tissue: OnTissue) -> Iterator[Block]:
    """Squares from the slide's corner on, those that touch tissue, row by row; positions are um.

    Raises
    ------
    InputError
        There is no tissue.
    """
    shape, ratio = grid.superpixel_shape, side_um / grid.superpixel_um
    rows, columns = (math.ceil(n / ratio - 1e-9) for n in shape)
    edges = np.arange(columns + 1) * ratio
    first = np.minimum(np.floor(edges[:-1] + 1e-9), shape[1] - 1).astype(int)
    last = np.minimum(np.ceil(edges[1:] - 1e-9), shape[1]).astype(int)
    held: list[NDArray[np.int64]] = []
    any_bin = False
    for row in range(rows):
        top, bottom = math.floor(row * ratio + 1e-9), math.ceil((row + 1) * ratio - 1e-9)
        there = on_tissue(Region(min(top, shape[0] - 1), min(bottom, shape[0]), 0, shape[1])).any(axis=0)
        before = np.concatenate([[0], np.cumsum(there)])
        column = np.flatnonzero(before[last] > before[first])
        held.append(np.column_stack([np.full(len(column), row), column]))
        if sum(map(len, held)) >= AREAS_AT_ONCE or row == rows - 1:
            places, held = np.concatenate(held), []
            any_bin |= len(places) > 0
            for start in range(0, len(places), AREAS_AT_ONCE):
                yield _squares(places[start : start + AREAS_AT_ONCE], side_um)
    if not any_bin:
        raise InputError("The run has no tissue: there is nothing to bin.", "Look at its tissue mask (iscale tissue).")


def _squares(places: NDArray[np.int64], side_um: float) -> Block:
    corner = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    outlines = (places[:, None, ::-1] + corner) * side_um
    ids = [f"r{row}c{column}" for row, column in places.tolist()]
    return Block(ids, simple_rings(outlines), {"array_row": places[:, 0], "array_col": places[:, 1]})
