"""What the sections of a report read from: the run, overviews of its arrays, and what was asked of it."""

from __future__ import annotations

import functools
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.arrays import block_mean
from iscale.engine.whole_file import whole_file
from iscale.geometry import Region, SlideGrid
from iscale.plots.draw import box_of
from iscale.plots.overview import reduction
from iscale.project.layout import file_name
from iscale.report.values import read_json
from iscale.store.run_store import RunStore

SMALL_TILE = 1024
"""Superpixels read at a time, per side; a multiple of every reduction."""

Plane = NDArray[np.float32]


class Reduced(NamedTuple):
    """How a map of the page is drawn: superpixels per side of a cell, its side in um, and the part with tissue."""

    factor: int
    cell_um: float
    box: tuple[slice, slice]


@functools.lru_cache(maxsize=4)
def tissue_box(store: RunStore, factor: int) -> tuple[slice, slice]:
    """The part of an overview that holds tissue, with a margin: a slide may be mostly glass.

    ``factor`` is superpixels per side of a cell of the overview.
    """
    share = mean_plane(store.array("tissue/mask"), factor)
    rows, columns = box_of(np.where(share > 0, share, np.nan))
    margin = max(2, max(share.shape) // 50)
    return _grown(rows, margin, share.shape[0]), _grown(columns, margin, share.shape[1])


def _grown(part: slice, margin: int, n: int) -> slice:
    return slice(max(0, part.start - margin), min(n, part.stop + margin))


def mean_plane(array: zarr.Array[Any], factor: int) -> Plane:
    """Mean of a (y, x) array over blocks of ``factor`` x ``factor``, of what is not NaN."""
    return _reduced(array.shape, factor, lambda tile: np.asarray(array[tile.slices], dtype=np.float32))


def kept_plane(mask: zarr.Array[Any], kept: zarr.Array[Any], factor: int) -> Plane:
    """Share of the superpixels of a mask that another one keeps; NaN where the mask has none."""

    def values(tile: Region) -> Plane:
        within, cells = np.asarray(mask[tile.slices]), np.asarray(kept[tile.slices])
        return np.where(within, cells.astype(np.float32), np.float32(np.nan))

    return _reduced(mask.shape, factor, values)


def _reduced(shape: tuple[int, ...], factor: int, values: Callable[[Region], Plane]) -> Plane:
    result = np.full((ceil(shape[0] / factor), ceil(shape[1] / factor)), np.nan, np.float32)
    for tile in Region(0, shape[0], 0, shape[1]).tiles(SMALL_TILE):
        result[tile.coarsened(factor).slices] = block_mean(values(tile), factor)
    return result


FOLDER = "report"
"""Folder of the output that holds every figure of the page as PNG."""

LONGEST = 400
"""Cells on the longer side of the page's maps."""

MAP_INCHES = 4.0
"""Width of a map that stands beside another: on the page its letters are then of the size of the text's."""

TILE = 2048
"""Superpixels read at a time, per side, of a mask or of labels."""


@dataclass(frozen=True)
class Scene:
    """A run as the report sees it.

    Attributes
    ----------
    project
        Its folder, for the commands that the page names.
    options, notices
        Options of the run, by name; what it had to say of its input.
    """

    store: RunStore
    grid: SlideGrid
    project: Path
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    notices: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Folder of the page's figures."""
        return self.store.folder / FOLDER

    def figure(self, name: str) -> Path:
        """File of one of the page's figures; the name may hold names that a user gave."""
        return self.folder / f"{file_name(name)}.png"

    def reduced(self, shape: tuple[int, ...]) -> Reduced:
        """How a (..., y, x) array of superpixels is drawn as one of the page's maps."""
        factor = reduction(shape, LONGEST)
        return Reduced(factor, self.grid.superpixel_um * factor, tissue_box(self.store, factor))

    def copied(self, source: Path, name: str) -> Path | None:
        """A figure that the run drew already, copied among the page's; None where it is not there."""
        if not source.is_file():
            return None
        target = self.figure(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as part:
            shutil.copyfile(source, part)
        return target

    def genes(self) -> tuple[str, ...]:
        """Names of the imputed genes, in the order of the rows."""
        if not self.store.has("expression/gene"):
            return ()
        return self.store.names("expression/gene")

    def attributes(self, group: str) -> dict[str, Any]:
        """Attributes of a group; none where it is not there."""
        return self.store.attributes(group) if self.store.has(group) else {}

    def report(self) -> dict[str, Any]:
        """What the run's last ``report.json`` says."""
        return read_json(self.store.folder / "report.json")

    def command(self, verb: str, *more: str) -> str:
        """A command line for this project."""
        return shlex.join(["iscale", verb, self.project.name, *more])


@functools.lru_cache(maxsize=8)
def share_of(store: RunStore, path: str, of: str = "") -> tuple[int, int]:
    """How many superpixels of a stored mask are set, and of how many: of all, or of those of another mask."""
    array, base = store.array(path), store.array(of) if of else None
    found = total = 0
    for tile in Region(0, array.shape[0], 0, array.shape[1]).tiles(TILE):
        values = np.asarray(array[tile.slices])
        within = np.ones_like(values) if base is None else np.asarray(base[tile.slices])
        found, total = found + int((values & within).sum()), total + int(within.sum())
    return found, total


def label_counts(array: zarr.Array[Any], row: int, n: int) -> list[int]:
    """How many superpixels of a row of a (row, y, x) array carry each of the labels 0 to n."""
    counts = np.zeros(n + 1, np.int64)
    for tile in Region(0, array.shape[-2], 0, array.shape[-1]).tiles(TILE):
        counts += np.bincount(np.asarray(array[(row, *tile.slices)]).ravel(), minlength=n + 1)[: n + 1]
    return [int(value) for value in counts]
