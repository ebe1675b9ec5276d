"""What is to be exported: genes, a window and bins of a run, checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

import numpy as np

from iscale.basis.source import Source
from iscale.engine.execute import Watcher
from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.progress import counted
from iscale.results import Run
from iscale.store.layout import SHARD_SUPERPIXELS

BIN_SIDES = (1, 2, 4, 8, 16)
"""Sides of bins, in superpixels: whole numbers of them lie in a shard, and in a slide that is padded to 256 px."""

Window = tuple[float, float, float, float]
"""x0, y0, x1, y1 in um from the slide's corner."""


@dataclass(frozen=True)
class Request:
    """An export.

    Attributes
    ----------
    run, source, grid
        The run, its maps, and the grids of its slide.
    genes
        Which to write.
    region
        Window of superpixels, whole bins.
    whole
        Whether that is the whole slide.
    side
        Side of a bin, in superpixels.
    part
        Where to write; it is renamed when all is there.
    watcher
        Who is told of progress.
    """

    run: Run
    source: Source
    grid: SlideGrid
    genes: tuple[str, ...]
    region: Region
    whole: bool
    side: int
    part: Path
    watcher: Watcher

    @property
    def superpixel_um(self) -> float:
        """Side of a superpixel, in um."""
        return self.grid.superpixel_um

    @property
    def bin_um(self) -> float:
        """Side of a bin, in um."""
        return self.grid.superpixel_um * self.side

    def blocks(self, n: int) -> Iterator[tuple[int, tuple[str, ...]]]:
        """The genes in blocks of ``n``, each with the place of its first."""
        for start in range(0, len(self.genes), n):
            yield start, self.genes[start : start + n]

    def told(self, total: int, step: str = "export") -> AbstractContextManager[Callable[[], None]]:
        """Tell the watcher of work whose parts are counted by calling what this gives."""
        return counted(self.watcher, step, total)


def check_tissue(request: Request) -> None:
    """Refuse a window of glass: there would be nothing in the file.

    Raises
    ------
    InputError
        There is no tissue.
    """
    mask, region, um = request.run.store.array("tissue/mask"), request.region, request.superpixel_um
    x0, x1, y0, y1 = (um * side for side in (region.x0, region.x1, region.y0, region.y1))
    if not any(np.asarray(mask[tile.slices]).any() for tile in tiles(region)):
        raise InputError(
            f"There is no tissue in the window (x {x0:g} to {x1:g}, y {y0:g} to {y1:g} um).",
            "Choose another one; iscale info says how large the slide is.",
        )


def tiles(region: Region, side: int = SHARD_SUPERPIXELS) -> list[Region]:
    """A region cut along the lattice of the slide."""
    return list(region.tiles(side))


def bin_side(bin_um: float | None, superpixel_um: float) -> int:
    """Side of a bin, in superpixels.

    Raises
    ------
    InputError
        Bins of this side are not whole superpixels, or too large.

    Examples
    --------
    >>> bin_side(16, 8.0), bin_side(None, 12.0)
    (2, 1)
    """
    if bin_um is None:
        return 1
    side = bin_um / superpixel_um
    if not any(abs(side - n) < 1e-6 for n in BIN_SIDES):
        known = ", ".join(f"{n * superpixel_um:g}" for n in BIN_SIDES)
        raise InputError(
            f"--bin {bin_um:g}: bins are 1, 2, 4, 8 or 16 superpixels wide, which are {superpixel_um:g} um here.",
            f"Choose one of {known} (um).",
        )
    return round(side)


def parse_window(text: str) -> Window:
    """Numbers of ``x0,y0,x1,y1``.

    >>> parse_window("0, 0, 1000, 500.5")
    (0.0, 0.0, 1000.0, 500.5)
    """
    try:
        x0, y0, x1, y1 = (float(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"--window {text}: four numbers are needed.", "Write x0,y0,x1,y1 in um.") from None
    return x0, y0, x1, y1


def choose_region(window: Window | None, grid: SlideGrid, side: int) -> Region:
    """Superpixels of the bins that a window touches; of the whole slide without one.

    Raises
    ------
    InputError
        The window is empty, or lies outside of the slide.

    Examples
    --------
    >>> grid = SlideGrid((1024, 2048), 0.5, 0.5)
    >>> str(choose_region((0, 0, 17, 30), grid, 2))
    'y 0:4, x 0:4'
    """
    height, width = grid.superpixel_shape
    if window is None:
        return Region(0, height, 0, width)
    x0, y0, x1, y1 = window
    shown = ",".join(f"{v:g}" for v in window)
    if not np.isfinite(window).all():
        raise InputError(f"--window {shown}: four numbers are needed.", "Write x0,y0,x1,y1 in um.")
    if not (x0 < x1 and y0 < y1):
        raise InputError(f"--window {shown} is empty.", "Write x0,y0,x1,y1 in um, with x0 < x1 and y0 < y1.")
    across, down = width * grid.superpixel_um, height * grid.superpixel_um
    if x1 <= 0 or y1 <= 0 or x0 >= across or y0 >= down:
        raise InputError(
            f"--window {shown} lies outside of the slide, which is {across:g} x {down:g} um.",
            "Write x0,y0,x1,y1 in um from the slide's upper left corner.",
        )
    step = grid.superpixel_um * side
    j0, i0 = max(0, floor(x0 / step)), max(0, floor(y0 / step))
    j1, i1 = min(ceil(x1 / step), width // side), min(ceil(y1 / step), height // side)
    return Region(i0, i1, j0, j1).scaled(side)
