"""Maps at blocks of superpixels, counted from the slide's corner: means over what both maps have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iscale.geometry import Region

BLOCKS = (1, 2, 4, 8)
"""Sides of the blocks, in superpixels."""

LEAST_SHARE = 0.5
"""A block of which both maps have a smaller share of the superpixels has no value."""

Maps = NDArray[np.float64]


def paired(true: NDArray[np.floating], guess: NDArray[np.floating]) -> tuple[Maps, Maps]:
    """Two arrays as float64, both NaN where either is not finite."""
    both = np.isfinite(true) & np.isfinite(guess)
    return np.where(both, true, np.nan).astype(np.float64), np.where(both, guess, np.nan).astype(np.float64)


def block_means(values: Maps, block: int) -> Maps:
    """Means over blocks of what is not NaN; NaN where that is less than half of a block.

    Parameters
    ----------
    values
        (..., y, x), rows and columns whole blocks.
    block
        Side of a block.

    Examples
    --------
    >>> values = np.array([[1, 3, np.nan, 5], [np.nan, 2, np.nan, np.nan]])
    >>> block_means(values, 2).tolist()
    [[2.0, nan]]
    """
    if block == 1:
        return values
    *rest, height, width = values.shape
    cells = values.reshape(*rest, height // block, block, width // block, block)
    there = np.isfinite(cells)
    count = there.sum(axis=(-3, -1))
    total = cells.sum(axis=(-3, -1), where=there)
    enough = count >= LEAST_SHARE * block**2
    return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=enough), np.float64)


def whole_blocks(region: Region) -> Region:
    """The region grown to whole blocks of every size; a slide's superpixels are whole blocks themselves.

    >>> whole_blocks(Region(3, 9, 8, 16))
    Region(y0=0, y1=16, x0=8, x1=16)
    """
    return region.coarsened(BLOCKS[-1]).scaled(BLOCKS[-1])
