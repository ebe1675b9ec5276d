"""Encoder ``precomputed:PATH``: features that another program computed, on the grid of their file.

One vector stands for a square cell of the slide. A cell must be a whole number of superpixels, and begin whole ones
from the slide's corner: then cells are copied, and nothing is interpolated. Of patches that overlap a cell is the
square in the middle, as wide as their step. The files are those of `iscale.encoders.feature_file`; they are read a
region at a time.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray

from iscale.encoders.base import EncoderSpec, FeatureGroup
from iscale.encoders.feature_file import FeatureFile, identify, open_feature_file
from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid

PREFIX = "precomputed:"
LARGEST_STRIDE = 64
"""Strides divide this, so that a shard of the store is whole cells; wider cells are repeated."""
DRIFT_SUPERPIXELS = 0.25
"""A list's cells may begin by less than this beside a superpixel."""
DRIFT_CELLS = 0.25
"""A cell may be not quite whole superpixels, if the last one of the slide is off by less than this."""
PLACE_PX = 1.0
"""Places may be rounded to whole pixels."""
ROWS_APART = 64
"""Rows of a list that lie closer than this are read in one piece."""


class _NotYet(tuple[FeatureGroup, ...]):
    """Groups before the slide is known: asking for them is a mistake in the program that must not pass in silence."""

    def __iter__(self) -> Never:
        raise RuntimeError("the groups of precomputed features depend on the slide: call check(grid) first")


class PrecomputedFeatures:
    """Features of a file as a `iscale.encoders.base.StoredFeatures`.

    The path follows ``precomputed:`` in the specification's name. A ``grid``, where it is known already, is checked.
    """

    def __init__(self, spec: EncoderSpec, grid: SlideGrid | None = None) -> None:
        self.name = spec.name
        self.path = Path(spec.name.removeprefix(PREFIX)).expanduser()
        self._file = open_feature_file(self.path)
        self._cells: _GridCells | _ListedCells = (
            _GridCells(self.path, self._file)
            if self._file.places is None
            else _ListedCells(self.path, self._file, self._file.places)
        )
        self._names = _names(self.path, self._file, self._cells.n_features)
        self._cell_superpixels = 0
        self._first_superpixels = (0, 0)
        self.groups: tuple[FeatureGroup, ...] = _NotYet()
        if grid is not None:
            self.check(grid)

    def identity(self) -> dict[str, Any]:
        """What the file is, and what is said on its grid."""
        return {
            "encoder": "precomputed",
            "version": 1,
            "file": identify(self.path),
            "notes": self._file.notes.model_dump(mode="json"),
        }

    def check(self, grid: SlideGrid) -> None:
        """Lay the file's cells over the slide: from here on `groups` are known.

        Refused where a cell is not whole superpixels, or the slide has another number of cells.
        """
        cell = self._whole_superpixels(grid)
        self._check_extent(grid, cell)
        first = self._first(grid)
        stride = math.gcd(cell, LARGEST_STRIDE, *first)
        self._cell_superpixels, self._first_superpixels = cell, first
        self.groups = (FeatureGroup("precomputed", self._names, stride=stride),)

    def _whole_superpixels(self, grid: SlideGrid) -> int:
        """Side of a cell in superpixels."""
        pixel_um = self._file.notes.pixel_size_um or grid.raw_pixel_size_um
        cell_um = self._cells.cell_px * pixel_um
        exact = cell_um / grid.superpixel_um
        whole = max(1, round(exact))
        across = max(grid.content_shape_px) / SUPERPIXEL_PX / exact
        if abs(exact - whole) / whole * across >= DRIFT_CELLS:
            fitting = cell_um / (whole * SUPERPIXEL_PX)
            raise InputError(
                f"{self.path}: a cell of {self._cells.cell_px:g} px of {pixel_um:g} um is {cell_um:g} um, "
                f"{exact:.4g} superpixels of {grid.superpixel_um:g} um: not a whole number",
                f"With --pixel-size {fitting:.5g} it is {whole}. If the pixels of the cells are of another size, "
                f"say it: pixel_size_um in {self.path.name}.json.",
            )
        return whole

    def _first(self, grid: SlideGrid) -> tuple[int, int]:
        """How many superpixels from the slide's corner (y, x) the cell 0, 0 begins."""
        pixel_um = self._file.notes.pixel_size_um or grid.raw_pixel_size_um
        exact = [shift * pixel_um / grid.superpixel_um for shift in self._cells.first_px]
        whole = tuple(round(shift) for shift in exact)
        off = max(abs(a - b) for a, b in zip(exact, whole, strict=True))
        if off > DRIFT_SUPERPIXELS:
            y, x = self._cells.first_px
            patch = self._file.notes.patch_px
            why = f": patches of {patch:g} px overlap, and stand for their middles" if patch else ""
            raise InputError(
                f"{self.path}: cells of {self._cells.cell_px:g} px begin {x:g}, {y:g} px (x, y) from the slide's "
                f"corner{why}; that is {exact[1]:.4g}, {exact[0]:.4g} superpixels: not whole ones",
                f"Compute features whose cells begin whole superpixels ({grid.superpixel_um / pixel_um:g} px) from the "
                "corner: without overlap, or with another one.",
            )
        return whole[0], whole[1]

    def _check_extent(self, grid: SlideGrid, cell: int) -> None:
        """The file must have as many cells as the slide, with or without its padding, give or take one."""
        rows, columns = self._cells.extent
        for found, content_px, padded, axis in zip(
            (rows, columns), grid.content_shape_px, grid.superpixel_shape, ("high", "wide"), strict=True
        ):
            least = content_px // (cell * SUPERPIXEL_PX) - 1 if self._cells.covers_slide else 0
            most = -(-padded // cell) + 1
            if not least <= found <= most:
                um = cell * grid.superpixel_um
                h, w = (n * grid.pixel_size_um for n in grid.content_shape_px)
                raise InputError(
                    f"{self.path} has {rows} x {columns} cells of {um:g} um (y, x), {rows * um:g} x {columns * um:g} "
                    f"um; the slide is {h:g} x {w:g} um: {found} cells {axis}, {least + 1} to {most - 1} expected",
                    "Check that the features are of this slide, its pixel size, and the file's axes (default yxf), "
                    f"cell_px, pixel_size_um and origin_px: {self.path.name}.json may name them.",
                )

    def read(self, group: FeatureGroup, cells: Region) -> NDArray[np.float32]:
        """A region of the group, in cells of its lattice: (feature, y, x) float32; NaN where there are none."""
        if not self._cell_superpixels:
            raise RuntimeError("precomputed features lie on the slide's grid: call check(grid) first")
        times = self._cell_superpixels // group.stride
        y, x = (first // group.stride for first in self._first_superpixels)
        out = np.full((len(self._names), *cells.shape), np.nan, np.float32)
        if cells.y1 <= y or cells.x1 <= x:
            return out
        own = Region(max(cells.y0 - y, 0), cells.y1 - y, max(cells.x0 - x, 0), cells.x1 - x)
        window = own.coarsened(times)
        values = self._cells.read(window)
        if times > 1:
            values = values.repeat(times, axis=1).repeat(times, axis=2)
        values = values[(slice(None), *own.within(window.scaled(times)))]
        out[:, cells.shape[0] - own.shape[0] :, cells.shape[1] - own.shape[1] :] = values
        return out


class _GridCells:
    """The cells of a file that holds an array over the slide."""

    covers_slide = True
    first_px = (0.0, 0.0)

    def __init__(self, path: Path, file: FeatureFile) -> None:
        self._features = file.features
        axes = file.notes.axes
        self._order = tuple(axes.index(axis) for axis in "fyx")
        self.n_features, height, width = (file.features.shape[i] for i in self._order)
        self.cell_px = _cell_px(path, file, "An array has no places to tell it from.")
        x, y = file.notes.origin_px
        self._row, self._column = (_whole(path, value, self.cell_px) for value in (y, x))
        self.extent = height + self._row, width + self._column
        self._shape = height, width

    def read(self, window: Region) -> NDArray[np.float32]:
        """Cells (feature, y, x) of a region of the slide."""
        out = np.full((self.n_features, *window.shape), np.nan, np.float32)
        y0, y1 = max(window.y0, self._row), min(window.y1, self.extent[0])
        x0, x1 = max(window.x0, self._column), min(window.x1, self.extent[1])
        if y0 < y1 and x0 < x1:
            there: list[slice] = [slice(None)] * 3
            there[self._order[1]] = slice(y0 - self._row, y1 - self._row)
            there[self._order[2]] = slice(x0 - self._column, x1 - self._column)
            values = np.asarray(self._features[tuple(there)], np.float32)
            out[(slice(None), *Region(y0, y1, x0, x1).within(window))] = values.transpose(self._order)
        return out


class _ListedCells:
    """The cells of a file that lists vectors and their places; the index of places is sorted once."""

    covers_slide = False

    def __init__(self, path: Path, file: FeatureFile, places: NDArray[np.float64]) -> None:
        self._features = file.features
        self.n_features = file.features.shape[1]
        self.cell_px = _cell_px(path, file, _steps(places))
        corner = np.array([origin % self.cell_px for origin in file.notes.origin_px])
        middle = 0.0 if file.notes.patch_px is None else (file.notes.patch_px - self.cell_px) / 2
        if middle < 0:
            raise InputError(
                f"{path}: a patch of {file.notes.patch_px:g} px is smaller than its cell of {self.cell_px:g} px",
                f"Give the patches' own size, or leave patch_px out, in {path.name}.json.",
            )
        self.first_px = float(corner[1] + middle), float(corner[0] + middle)
        cells = (places - corner) / self.cell_px
        nearest = np.rint(cells).astype(np.int64)
        off = (np.abs(cells - nearest) * self.cell_px > PLACE_PX).any(axis=1) | (nearest < 0).any(axis=1)
        if off.any():
            x, y = places[int(np.argmax(off))]
            raise InputError(
                f"{path}: {int(off.sum())} of {len(off)} places do not lie on a grid of {self.cell_px:g} px from "
                f"{file.notes.origin_px[0]:g}, {file.notes.origin_px[1]:g}: the first is {x:g}, {y:g}. "
                f"{_steps(places)}",
                "Give features of patches on one grid. Where it begins beside the slide's corner say origin_px; where "
                f"patches overlap, their step as cell_px and their size as patch_px, in {path.name}.json.",
            )
        columns, rows = nearest.T
        self._order = np.lexsort((columns, rows))
        self._rows, self._columns = rows[self._order], columns[self._order]
        self.extent = int(rows.max()) + 1, int(columns.max()) + 1
        twice = int(((np.diff(self._rows) == 0) & (np.diff(self._columns) == 0)).sum())
        if twice:
            raise InputError(
                f"{path}: {twice} of {len(rows)} places are in a cell of {self.cell_px:g} px that has another already",
                "Give one vector per cell: a place must not come twice.",
            )

    def read(self, window: Region) -> NDArray[np.float32]:
        """Cells (feature, y, x) of a region of the slide."""
        out = np.full((self.n_features, *window.shape), np.nan, np.float32)
        first, last = np.searchsorted(self._rows, (window.y0, window.y1))
        inside = np.arange(first, last)
        columns = self._columns[first:last]
        inside = inside[(columns >= window.x0) & (columns < window.x1)]
        inside = inside[np.argsort(self._order[inside])]
        if len(inside):
            values = _take(self._features, self._order[inside])
            out[:, self._rows[inside] - window.y0, self._columns[inside] - window.x0] = values.T
        return out


def _take(features: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Sorted rows of (n, feature), read in pieces: HDF5 is slow at picking single ones."""
    pieces = np.split(rows, np.flatnonzero(np.diff(rows) > ROWS_APART) + 1)
    return np.concatenate([np.asarray(features[p[0] : p[-1] + 1], np.float32)[p - p[0]] for p in pieces])


def _cell_px(path: Path, file: FeatureFile, hint: str) -> float:
    if file.notes.cell_px is None:
        raise InputError(
            f"{path} does not say how large the square is that a vector stands for. {hint}",
            f'Write {path.name}.json beside it, such as {{"cell_px": 256, "pixel_size_um": 0.5}}; without '
            "pixel_size_um, pixels are those of the slide file. Where patches overlap, cell_px is their step, and "
            'their size is to be said as well: {"cell_px": 256, "patch_px": 512}.',
        )
    return file.notes.cell_px


def _steps(places: NDArray[np.float64]) -> str:
    """How far apart places are, as a hint to the size of cells."""
    steps = [np.diff(np.unique(places[:, axis])) for axis in (0, 1)]
    least = [f"{step.min():g}" if len(step) else "?" for step in steps]
    return f"Its places are at least {least[0]} (x) and {least[1]} (y) px apart."


def _whole(path: Path, origin_px: float, cell_px: float) -> int:
    cells = round(origin_px / cell_px)
    if cells < 0 or abs(cells * cell_px - origin_px) > PLACE_PX:
        raise InputError(
            f"{path}: the origin of {origin_px:g} px is not a whole number of cells of {cell_px:g} px",
            "Give features whose grid begins at the slide's corner, or whole cells to the right and below.",
        )
    return cells


def _names(path: Path, file: FeatureFile, n: int) -> tuple[str, ...]:
    names = file.notes.names or tuple(f"f{i}" for i in range(n))
    if len(names) != n or len(set(names)) != n:
        raise InputError(
            f"{path} has {n} features and {len(names)} names, {len(set(names))} of them different",
            "Give one name per feature, each its own, or none.",
        )
    return names
