"""What a run is held against: maps of superpixels, or spots, as values; and where a map lies on the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.captures.counts import Counts
from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.model.genes import GeneArray
from iscale.store.layout import genes_by_chunk
from iscale.words import by


class Maps(Protocol):
    """Where measured maps are read from, a window at a time."""

    def read(self, genes: Sequence[int], region: Region) -> NDArray[np.float32]:
        """(gene, y, x) of a region of the run's superpixels; NaN where nothing was measured."""
        ...


@dataclass(frozen=True)
class PlacedMaps:
    """Maps in an array (gene, y, x), stored, on disk or in memory, or in a list of arrays (y, x), at ``place``."""

    arrays: zarr.Array[Any] | NDArray[Any] | Sequence[NDArray[Any]]
    place: Region

    def read(self, genes: Sequence[int], region: Region) -> NDArray[np.float32]:
        """(gene, y, x) of a region; NaN beyond the arrays. Genes of one chunk are read together."""
        values = np.full((len(genes), *region.shape), np.nan, np.float32)
        y0, y1 = max(region.y0, self.place.y0), min(region.y1, self.place.y1)
        x0, x1 = max(region.x0, self.place.x0), min(region.x1, self.place.x1)
        if y0 >= y1 or x0 >= x1:
            return values
        inside = Region(y0, y1, x0, x1)
        own, target = inside.within(self.place), inside.within(region)
        if isinstance(self.arrays, zarr.Array):
            read_genes(self.arrays, genes, own, values[:, *target])
        else:
            for row, gene in enumerate(genes):
                values[row][target] = self.arrays[gene][own]
        return values


def read_genes(array: GeneArray, genes: Sequence[int], place: tuple[slice, slice], into: NDArray[np.floating]) -> None:
    """Fill (gene, y, x) with a place of a stored array's genes, in any order; those of a chunk are read together."""
    for rows in genes_by_chunk(genes, array.chunks[0]):
        first, last = genes[rows[0]], genes[rows[-1]]
        together = np.asarray(array[(slice(first, last + 1), *place)])
        for row in rows:
            into[row] = together[genes[row] - first]


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
    """The superpixels of the run that a map's cells, (rows, columns), are; refused, with both shapes, where they are
    none.

    Without coordinates the map must be the run's superpixels, with or without those that the image is padded with at
    the right and at the bottom. With ``centres_um``, y and x of the cells' centres in um from the slide's corner, it
    may be a part of the slide. ``source`` is the file, for messages.
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
        shown = f"{source} is a map of {shape[0]} x {shape[1]} cells, {step:.5g} um apart in {dim}, {run}."
        if abs(step / um - 1) > 1e-3 or not np.allclose(np.diff(centres), step, rtol=1e-2):
            raise InputError(shown, "Bring it to superpixels of the run's size, or run at its resolution.")
        if abs(start - round(start)) > 0.05 or round(start) < 0 or round(start) + len(centres) > n:
            raise InputError(
                f"{shown} Its first centre in {dim} is at {float(centres[0]):.5g} um, its last at "
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


def gene_first(array: NDArray[Any], n_genes: int, source: str, *, genes_last: bool = False) -> NDArray[Any]:
    """A view (gene, y, x) of an array that has the genes first or last; of a cube, as ``genes_last`` says."""
    fits = [axis for axis in (0, 2) if array.ndim == 3 and array.shape[axis] == n_genes]
    if not fits:
        raise InputError(
            f"{source}: the array has the shape {by(array.shape)}, and there are {n_genes} names of genes.",
            "Give an array (gene, y, x) and as many names as it has genes.",
        )
    return np.moveaxis(array, fits[-1 if genes_last else 0], 0)
