"""What a run is held against: maps of superpixels, or spots, as values; and where a map lies on the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from iscale.captures.counts import Counts
from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid


class Maps(Protocol):
    """Where measured maps are read from, a window at a time."""

    def read(self, genes: Sequence[int], region: Region) -> NDArray[np.float32]:
        """(gene, y, x) of a region of the run's superpixels; NaN where nothing was measured."""
        ...


@dataclass(frozen=True)
class MapTruth:
    """Measured values per superpixel of the run.

    Attributes
    ----------
    name
        What its results are filed under.
    genes
        (gene,) names.
    maps
        What reads them.
    region
        Superpixels of the run that it covers; beyond, nothing was measured.
    what
        What it is, for people.
    held_bytes
        Memory that it takes while it is open.
    notices
        What the user should know of it, one sentence each.
    all_genes
        Names of all genes that were measured, where `genes` are not all of them.
    tight
        Whether something was measured at every side of the region.
    """

    name: str
    genes: tuple[str, ...]
    maps: Maps
    region: Region
    what: str
    held_bytes: int = 0
    notices: tuple[str, ...] = ()
    all_genes: tuple[str, ...] = ()
    tight: bool = False


@dataclass(frozen=True)
class SpotTruth:
    """Measured spots, each a disc over superpixels of the run.

    Attributes
    ----------
    name, genes, what, notices
        As of `MapTruth`.
    counts
        (spot, gene).
    xy_px
        (spot, 2): x, y of the centres in pixels of the analysis image.
    radius_um
        Radius of the spots.
    """

    name: str
    genes: tuple[str, ...]
    counts: Counts
    xy_px: NDArray[np.float64]
    radius_um: float
    what: str
    notices: tuple[str, ...] = ()


Truth = MapTruth | SpotTruth


@dataclass(frozen=True)
class Reading:
    """How the truth's folder is to be read, where that is not as it says itself.

    Attributes
    ----------
    genes
        Genes of the run: of a capture no others are kept.
    bin_um, platform, radius_um
        Of a capture: side of the bins, the platform, and the radius of its spots.
    """

    genes: frozenset[str] = field(default_factory=frozenset)
    bin_um: float | None = None
    platform: str | None = None
    radius_um: float | None = None


def region_on(
    shape: tuple[int, int],
    grid: SlideGrid,
    source: str,
    centres_um: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
) -> Region:
    """The superpixels of the run that a map's cells are.

    Parameters
    ----------
    shape
        Rows and columns of the map. Without coordinates it must be the run's superpixels, with or without those that
        the image is padded with at the right and at the bottom.
    grid
        Grids of the slide.
    source
        The file, for messages.
    centres_um
        y and x of the cells' centres in um from the slide's corner, where the map states them; it may then be a part
        of the slide.

    Raises
    ------
    InputError
        The cells are not the run's superpixels; the message has both shapes, and sizes where they are known.
    """
    whole, um = grid.superpixel_shape, grid.superpixel_um
    run = f"the run has {whole[0]} x {whole[1]} superpixels of {um:g} um"
    if centres_um is None:
        if shape in _unpadded(grid):
            return Region(0, shape[0], 0, shape[1])
        sizes = [um * n / m for n, m in zip(whole, shape, strict=True)]
        same = abs(sizes[0] / sizes[1] - 1) < 0.05
        guess = f" If it is of the whole slide, its cells are of {sizes[0]:.3g} um." if same else ""
        raise InputError(
            f"{source} is a map of {shape[0]} x {shape[1]} cells, {run}.{guess}",
            "Give a truth on the run's superpixels, or of a part of the slide with coordinates y and x in um (centres "
            "of the cells); or run at the truth's resolution (--pixel-size is 1/16 of a superpixel).",
        )
    starts = []
    for dim, centres, n in zip("yx", centres_um, whole, strict=True):
        step = float(np.median(np.diff(centres))) if len(centres) > 1 else um
        start = float(centres[0]) / um - 0.5
        told = f"{source} is a map of {shape[0]} x {shape[1]} cells, {step:.5g} um apart in {dim}, {run}."
        if abs(step / um - 1) > 1e-3 or not np.allclose(np.diff(centres), step, rtol=1e-2):
            raise InputError(told, "Bring it to superpixels of the run's size, or run at its resolution.")
        if abs(start - round(start)) > 0.05 or round(start) < 0 or round(start) + len(centres) > n:
            raise InputError(
                f"{told} Its first centre in {dim} is at {float(centres[0]):.5g} um, its last at "
                f"{float(centres[-1]):.5g} um.",
                f"Centres of superpixels are at {um / 2:g}, {1.5 * um:g} ... {(n - 0.5) * um:g} um.",
            )
        starts.append(round(start))
    return Region(starts[0], starts[0] + shape[0], starts[1], starts[1] + shape[1])


def _unpadded(grid: SlideGrid) -> set[tuple[int, int]]:
    """Shapes that a map of the whole slide may have: with the padding, and without, the last part cell in or out."""
    high, wide = (
        {n, -(-size // 16), size // 16} for n, size in zip(grid.superpixel_shape, grid.content_shape_px, strict=True)
    )
    return {(h, w) for h in high for w in wide}
