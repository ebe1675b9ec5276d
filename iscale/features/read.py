"""Stored feature groups, read as the model sees them: every group at superpixels, smoothed with its box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from iscale.encoders.base import FeatureGroup
from iscale.geometry import Region
from iscale.store.run_store import RunStore


def read_features(store: RunStore, groups: Sequence[FeatureGroup], region: Region) -> NDArray[np.float32]:
    """Features of a region of superpixels.

    Returns
    -------
    ndarray
        (feature, y, x) float32, the groups one after the other; NaN off tissue.
    """
    mask = store.array("tissue/mask")[region.slices]
    parts = [read_group(store, group, region, store.array("tissue/mask").shape) for group in groups]
    features = np.concatenate(parts)
    features[:, ~np.asarray(mask)] = np.nan
    return features


def read_group(store: RunStore, group: FeatureGroup, region: Region, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One group at superpixels, smoothed: (feature, y, x) float32."""
    window = region.grown(group.smooth // 2, (shape[0], shape[1]))
    cells = window.coarsened(group.stride)
    values = np.asarray(store.array(f"features/{group.name}")[(slice(None), *cells.slices)], dtype=np.float32)
    if group.stride > 1:
        values = values.repeat(group.stride, axis=1).repeat(group.stride, axis=2)
        values = values[(slice(None), *window.within(cells.scaled(group.stride)))]
    if group.smooth > 1:
        values = box_mean(values, group.smooth)
    return values[(slice(None), *region.within(window))]


def box_mean(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Mean over a box of ``size`` x ``size``, of the cells that are not NaN (method, section 2).

    An even box averages the offsets -size/2 to size/2 - 1; borders reflect with the edge repeated.

    >>> box_mean(np.array([[[0, 2, np.nan, 8]]], dtype=np.float32), 2).tolist()
    [[[0.0, 1.0, 2.0, 8.0]]]
    """
    there = ~np.isnan(values)
    box = (1, size, size)
    total = ndimage.uniform_filter(np.where(there, values, 0).astype(np.float64), box, mode="reflect")
    weight = ndimage.uniform_filter(there.astype(np.float64), box, mode="reflect")
    # Running sums leave a trace of rounding where nothing is there: less than one cell of the box is none.
    empty = weight < 0.5 / size**2
    return np.where(empty, np.nan, total / np.where(empty, 1, weight)).astype(np.float32)
