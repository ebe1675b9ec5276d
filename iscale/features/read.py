"""Stored feature groups, read as the model sees them: at superpixels, smoothed with their box; by window, or lazily."""

from __future__ import annotations

from collections.abc import Sequence

import dask.array as da
import numpy as np
import xarray as xr
from array_api_compat import array_namespace, is_numpy_array
from numpy.typing import NDArray

from iscale.arrays import Array, apply_on
from iscale.encoders.base import FeatureGroup
from iscale.geometry import Region
from iscale.store.layout import SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore

PLANES_AT_ONCE = 8
"""Features that NumPy smooths at a time, so that their sums stay in cache; a GPU takes all."""


def read_features(
    store: RunStore, groups: Sequence[FeatureGroup], region: Region, device: str = "cpu"
) -> NDArray[np.float32]:
    """Features of a region of superpixels.

    Parameters
    ----------
    store, groups, region
        Which groups, and where.
    device
        Where they are smoothed: see `iscale.arrays.apply_on`.

    Returns
    -------
    ndarray
        (feature, y, x) float32, the groups one after the other; NaN off tissue.
    """
    mask = store.array("tissue/mask")
    features = np.concatenate([_read_group(store, group, region, mask.shape, device) for group in groups])
    features[:, ~np.asarray(mask[region.slices])] = np.nan
    return features


def _read_group(
    store: RunStore, group: FeatureGroup, region: Region, shape: tuple[int, ...], device: str
) -> NDArray[np.float32]:
    """One group at superpixels, smoothed: (feature, y, x) float32."""
    window = region.grown(group.smooth // 2, shape)
    cells = window.coarsened(group.stride)
    values = np.asarray(store.array(f"features/{group.name}")[(slice(None), *cells.slices)], dtype=np.float32)
    if group.stride > 1:
        values = values.repeat(group.stride, axis=1).repeat(group.stride, axis=2)
        values = values[(slice(None), *window.within(cells.scaled(group.stride)))]
    if group.smooth > 1:
        values = apply_on(device, box_mean, values, group.smooth)
    return values[(slice(None), *region.within(window))]


def box_mean(values: Array, size: int) -> Array:
    """Mean over a box of ``size`` x ``size``, of the cells that are not NaN (method, section 2).

    An even box averages the offsets -size/2 to size/2 - 1; borders reflect with the edge repeated. ``values`` are
    (feature, y, x) float32, of NumPy or another library that follows the array API; so are the means, NaN where nothing
    is in the box.

    >>> box_mean(np.array([[[0, 2, np.nan, 8]]], dtype=np.float32), 2).tolist()
    [[[0.0, 1.0, 2.0, 8.0]]]
    """
    xp = array_namespace(values)
    means = xp.empty_like(values)
    step = PLANES_AT_ONCE if is_numpy_array(values) else max(1, values.shape[0])
    for start in range(0, values.shape[0], step):
        planes = values[start : start + step, ...]
        there = ~xp.isnan(planes)
        total = _box_sum(xp.where(there, xp.astype(planes, xp.float64), 0.0), size)
        if xp.all(there == there[:1, ...]):  # off tissue, all features of a group are missing
            there = there[:1, ...]
        weight = _box_sum(xp.astype(there, xp.float64), size)
        mean = xp.where(weight > 0, total / xp.where(weight > 0, weight, 1.0), xp.nan)
        means[start : start + step, ...] = xp.astype(mean, values.dtype)
    return means


def _box_sum(planes: Array, size: int) -> Array:
    """Sums over boxes of (feature, y, x) float64."""
    xp = array_namespace(planes)
    for axis in (1, 2):
        n = planes.shape[axis]
        at = xp.arange(-(size // 2), n + (size - 1) // 2) % (2 * n)
        at = xp.where(at < n, at, 2 * n - 1 - at)
        planes = _window_sums(xp.take(planes, at, axis=axis), size, axis)
    return planes


def _window_sums(planes: Array, size: int, axis: int) -> Array:
    """Sums of ``size`` neighbours along an axis, shorter by ``size`` - 1.

    Put together from sums of 1, 2, 4, 8 ... neighbours: few additions, and, unlike a running sum, no value depends on
    what lies outside its window.
    """

    def part(array: Array, start: int, stop: int) -> Array:
        return array[(slice(None),) * axis + (slice(start, stop), ...)]

    n = planes.shape[axis] - size + 1
    total, added, span = None, 0, 1
    while True:
        if size & span:
            piece = part(planes, added, added + n)
            total, added = piece if total is None else total + piece, added + span
        if added == size:
            return total
        length = planes.shape[axis] - span
        planes = part(planes, 0, length) + part(planes, span, span + length)
        span *= 2


def lazy_features(store: RunStore, groups: Sequence[FeatureGroup], tissue: xr.DataArray) -> xr.DataArray:
    """Features as the model sees them: (feature, y, x) float32, a Dask chunk per shard; NaN off tissue.

    ``tissue`` is the (y, x) mask with its coordinates.
    """
    names = [f"{group.name}/{feature}" for group in groups for feature in group.features]
    side = SHARD_SUPERPIXELS
    rows, columns = (tuple(min(side, n - i) for i in range(0, n, side)) for n in tissue.shape)

    def read(block_info: dict[int | None, dict[str, list[tuple[int, int]]]] | None = None) -> NDArray[np.float32]:
        assert block_info is not None
        (_, y, x) = block_info[None]["array-location"]
        return read_features(store, groups, Region(y[0], y[1], x[0], x[1]))

    values = da.map_blocks(
        read, chunks=((len(names),), rows, columns), dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
    )
    coordinates = {"feature": names, "y": tissue["y"], "x": tissue["x"]}
    return xr.DataArray(values, dims=("feature", "y", "x"), coords=coordinates, name="features")
