"""Where patches lie on a slide: pure arithmetic.

Patches of ``patch`` superpixels a side start at every multiple of ``step`` superpixels, as many as lie within the slide
(one may stick out where the slide is no whole number of steps). All patches whose places agree modulo ``patch`` tile
the slide without overlap: each such tiling is one of the method's shifts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from iscale.geometry import Region

Vectors = NDArray[np.float32]
"""(y, x, feature) over a box of the lattice's places; NaN where a patch was not encoded."""


@dataclass(frozen=True)
class PatchLattice:
    """The places of a slide's patches.

    >>> lattice = PatchLattice((32, 48), patch=16, step=4)
    >>> lattice.places, lattice.shifts
    ((5, 9), 4)
    """

    shape: tuple[int, int]
    """Rows and columns of superpixels."""
    patch: int
    """Side of a patch, in superpixels."""
    step: int
    """From one patch to the next, in superpixels."""

    @property
    def places(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = (max(0, ceil((n - self.patch) / self.step)) + 1 for n in self.shape)
        return rows, columns

    @property
    def shifts(self) -> int:
        """Shifts per axis."""
        return self.patch // self.step

    def covering(self, region: Region) -> Region:
        """Places of all patches that overlap a region of superpixels.

        >>> PatchLattice((64, 64), 16, 4).covering(Region(16, 32, 0, 4))
        Region(y0=1, y1=8, x0=0, x1=1)
        """
        n_rows, n_columns = self.places
        return Region(
            max(0, ceil((region.y0 - self.patch + 1) / self.step)),
            min(n_rows, ceil(region.y1 / self.step)),
            max(0, ceil((region.x0 - self.patch + 1) / self.step)),
            min(n_columns, ceil(region.x1 / self.step)),
        )

    def owned(self, region: Region) -> tuple[slice, slice]:
        """Places of the patches that begin in a region of superpixels; every patch begins in one of a tiling."""
        ends = ((region.y0, region.y1), (region.x0, region.x1))
        rows, columns = (
            slice(*(min(n, ceil(at / self.step)) for at in end)) for end, n in zip(ends, self.places, strict=True)
        )
        return rows, columns

    def reach(self, places: Region) -> Region:
        """Superpixels that patches cover, beyond the slide's end where one sticks out."""
        return Region(
            places.y0 * self.step,
            (places.y1 - 1) * self.step + self.patch,
            places.x0 * self.step,
            (places.x1 - 1) * self.step + self.patch,
        )

    def touching(self, mask: NDArray[np.bool_], places: Region) -> NDArray[np.bool_]:
        """Which patches, (y, x) over ``places``, have a superpixel that is marked in the mask (y, x) of their reach."""
        total = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        y = np.arange(places.shape[0])[:, None] * self.step
        x = np.arange(places.shape[1])[None] * self.step
        y1, x1 = y + self.patch, x + self.patch
        found: NDArray[np.bool_] = total[y1, x1] - total[y, x1] - total[y1, x] + total[y, x] > 0
        return found


def computed_twice(lattice: PatchLattice, regions: Iterable[Region]) -> float:
    """Share of a slide's patches that regions compute beyond once each.

    >>> lattice = PatchLattice((256, 256), 16, 4)
    >>> round(computed_twice(lattice, [Region(0, 128, 0, 256), Region(128, 256, 0, 256)]), 3)
    0.049
    """
    done = sum(lattice.covering(region).area for region in regions)
    return done / (lattice.places[0] * lattice.places[1]) - 1
