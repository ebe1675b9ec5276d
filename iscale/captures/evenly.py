"""A part of many spots that is spread over the tissue, and over the captures, as all of them are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PER_CELL = 8
"""Spots that are chosen in a cell of the grid, about."""


def evenly_spread(xy: NDArray[np.float64], capture: NDArray[np.int64], most: int, seed: int = 0) -> NDArray[np.int64]:
    """Choose at most so many spots, from every place and capture the same share.

    Spots are put into the order of captures, of cells of a grid along a snake within each, and of chance within a cell;
    then every n-th is taken. The choice depends on nothing but the spots and the seed.

    Parameters
    ----------
    xy
        (spot, 2): x, y in any unit.
    capture
        (spot,): the capture of each.
    most
        Number of spots; where there are no more than that, all are chosen.
    seed
        Of the order within a cell.

    Returns
    -------
    chosen
        (at most ``most``,) indices, ascending.
    """
    if len(xy) <= most:
        return np.arange(len(xy))
    low, extent = xy.min(axis=0), np.ptp(xy, axis=0)
    side = np.sqrt(max(extent.prod(), 1e-300) * PER_CELL / most) or 1.0
    column, row = np.minimum((xy - low) / side, 2**31).astype(np.int64).T
    along = np.where(row % 2, -column, column)
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(xy)), along, row, capture))
    picked = np.floor((np.arange(most) + rng.random()) * (len(xy) / most)).astype(np.int64)
    return np.sort(order[picked])
