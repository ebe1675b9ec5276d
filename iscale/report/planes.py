"""Overviews of (y, x) arrays of a run, reduced tile by tile."""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.geometry import Region
from iscale.plots.contact_sheet import box_of
from iscale.plots.overview import block_mean
from iscale.store.run_store import RunStore

TILE = 1024
"""Superpixels read at a time, per side; a multiple of every reduction."""

Plane = NDArray[np.float32]


@functools.lru_cache(maxsize=4)
def tissue_box(store: RunStore, factor: int) -> tuple[slice, slice]:
    """The part of a slide's overview that holds tissue, with a margin: a slide may be mostly glass.

    Parameters
    ----------
    store
        The run.
    factor
        Superpixels per side of a cell of the overview.
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
    for tile in Region(0, shape[0], 0, shape[1]).tiles(TILE):
        result[tile.coarsened(factor).slices] = block_mean(values(tile), factor)
    return result
