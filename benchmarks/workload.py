"""The work of a slide, region by region, and workers that take it: what `benchmarks.scaling` adds up.

Regions are those of the program's own planner. Which of them have tissue, and how much, is that of the synthetic
tissue: a few large pieces on glass.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from iscale.demo.tissue import SyntheticTissue
from iscale.engine.plan import Plan, Resources, plan_overlapping, plan_regions
from iscale.features.patch_lattice import PatchLattice
from iscale.features.stage import patches_bytes
from iscale.geometry import Region, SlideGrid
from iscale.store.layout import SHARD_SUPERPIXELS

CELL = 4
"""Tissue is told by cells of 4 x 4 superpixels, 64 px: the finest lattice on which patches begin."""

PATCH = 16
"""Side of a patch, in superpixels."""

PIXEL_UM = 0.5
STEPS = {16: 4, 4: 8, 1: 16}
"""Superpixels from one patch to the next, by the number of shifts."""


@dataclass(frozen=True)
class Slide:
    """A slide to be computed.

    Attributes
    ----------
    side, tissue, genes
        Pixels of 0.5 um per side, share of it that is tissue, and genes to impute.
    """

    side: int = 100_000
    tissue: float = 0.3
    genes: int = 3000

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of superpixels."""
        return SlideGrid((self.side, self.side), PIXEL_UM, PIXEL_UM).superpixel_shape

    @property
    def superpixels(self) -> float:
        """Superpixels of tissue."""
        return float(cells(self).sum()) * CELL**2


@lru_cache(maxsize=4)
def cells(slide: Slide) -> NDArray[np.bool_]:
    """(y, x) cells that are tissue."""
    rows, columns = (n // CELL for n in slide.shape)
    y_um, x_um = ((np.arange(n) + 0.5) * CELL * 16 * PIXEL_UM for n in (rows, columns))
    painted = SyntheticTissue((slide.side, slide.side), PIXEL_UM, 0, slide.tissue)
    found: NDArray[np.bool_] = painted.share(y_um, x_um) > 0.5
    return found


def shards(slide: Slide, workers: int, side: int = SHARD_SUPERPIXELS) -> Plan:
    """The regions of a stage that works shard by shard, of shards of so many superpixels a side."""
    return plan_regions("shards", slide.shape, (side, side), lambda _: 10**8, Resources(2 * 10**9, workers))


def tissue_of(slide: Slide, plan: Plan) -> list[float]:
    """Superpixels of tissue of every region."""
    mask = cells(slide)
    return [float(mask[region.coarsened(CELL).slices].sum()) * CELL**2 for region in plan.regions]


@lru_cache(maxsize=64)
def patches(slide: Slide, shifts: int, workers: int, memory: int = 16 * 10**9) -> tuple[int, ...]:
    """Patches that are encoded for every region of HIPT's plan: those of neighbours that reach into it included."""
    step, side = STEPS[shifts], SHARD_SUPERPIXELS
    lattice = PatchLattice(slide.shape, PATCH, step)
    shapes = SimpleNamespace(token_width=384, vector_width=384, patch=PATCH, step=step)
    plan = plan_overlapping(
        "features/patches",
        slide.shape,
        (side, side),
        lambda rows_columns: patches_bytes(shapes, rows_columns),
        lambda region: lattice.covering(region).area,
        Resources(memory, workers),
    )
    mask = cells(slide)
    coarse = PatchLattice((mask.shape[0], mask.shape[1]), PATCH // CELL, step // CELL)
    return tuple(_encoded(coarse, mask, region.coarsened(CELL)) for region in plan.regions)


def _encoded(lattice: PatchLattice, mask: NDArray[np.bool_], region: Region) -> int:
    """Patches of a region that cover tissue of it, or begin in it and cover any."""
    places = lattice.covering(region)
    reach = lattice.reach(places)
    marks = np.zeros(reach.shape, np.bool_)
    inside = Region(reach.y0, min(reach.y1, mask.shape[0]), reach.x0, min(reach.x1, mask.shape[1]))
    marks[inside.within(reach)] = mask[inside.slices]
    here = np.zeros_like(marks)
    here[region.within(reach)] = marks[region.within(reach)]
    wanted = lattice.touching(here, places)
    y, x = lattice.owned(region)
    own = slice(y.start - places.y0, y.stop - places.y0), slice(x.start - places.x0, x.stop - places.x0)
    wanted[own] |= lattice.touching(marks, places)[own]
    return int(wanted.sum())


def patches_on_tissue(slide: Slide, shifts: int) -> int:
    """Patches that cover tissue, each once."""
    mask = cells(slide)
    lattice = PatchLattice((mask.shape[0], mask.shape[1]), PATCH // CELL, STEPS[shifts] // CELL)
    everything = Region(0, lattice.places[0], 0, lattice.places[1])
    reach = lattice.reach(everything)
    beyond = [(0, reach.y1 - mask.shape[0]), (0, reach.x1 - mask.shape[1])]
    return int(lattice.touching(np.pad(mask, beyond), everything).sum())


def finished(seconds: Iterable[float], workers: int) -> float:
    """When workers are through that take the regions in order, whoever is free the next.

    >>> finished([3, 1, 1, 1], 2), finished([1, 1, 1, 3], 2)
    (3.0, 4.0)
    """
    free = [0.0] * workers
    for took in seconds:
        heapq.heapreplace(free, free[0] + took)
    return max(free)
