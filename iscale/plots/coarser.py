"""Spots that are too many for a figure, drawn as means over squares."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MOST_DRAWN = 100_000
"""Spots of a figure; more are smaller than its pixels."""

Values = NDArray[np.floating]


def coarser(xy_um: Values, radius_um: float, values: Values) -> tuple[Values, Values, Values]:
    """Spots as they are, or where they are too many, squares of them at their mean place, with mean values.

    Parameters
    ----------
    xy_um
        (spot, 2) places.
    radius_um
        Radius of every spot.
    values
        (spot, column).

    Returns
    -------
    xy_um, radius_um, values
        (drawn, 2), (drawn,) radii of discs of the squares' area, (drawn, column).
    """
    if len(xy_um) <= MOST_DRAWN:
        return xy_um, np.full(len(xy_um), radius_um), values
    low, extent = xy_um.min(axis=0), np.ptp(xy_um, axis=0)
    side = math.sqrt(float(extent.prod()) / MOST_DRAWN) or float(extent.max()) / MOST_DRAWN
    column, row = np.floor((xy_um - low) / side).astype(np.int64).T
    _, square = np.unique(row * (int(column.max()) + 1) + column, return_inverse=True)
    n = np.bincount(square)
    means = [np.bincount(square, part) / n for part in (*xy_um.T, *values.T)]
    return np.column_stack(means[:2]), np.full(len(n), side / math.sqrt(math.pi)), np.column_stack(means[2:])
