"""Overviews of (y, x) arrays of a run, reduced tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.geometry import Region
from iscale.plots.overview import block_mean

TILE = 1024
"""Superpixels read at a time, per side; a multiple of every reduction."""

Plane = NDArray[np.float32]


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
    for tile in Region(0, shape[0], 0, shape[1]).tiles(TILE):
        result[tile.coarsened(factor).slices] = block_mean(values(tile), factor)
    return result
