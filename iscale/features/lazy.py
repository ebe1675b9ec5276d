"""Features of a whole slide as one lazy array: each chunk is read, and smoothed, when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from iscale.encoders.base import FeatureGroup
from iscale.features.read import read_features
from iscale.geometry import Region
from iscale.store.layout import SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore


def lazy_features(store: RunStore, groups: Sequence[FeatureGroup], tissue: xr.DataArray) -> xr.DataArray:
    """Features as the model sees them.

    Parameters
    ----------
    store, groups
        The store, and the groups of features in it.
    tissue
        (y, x) mask with its coordinates.

    Returns
    -------
    DataArray
        (feature, y, x) float32, a Dask chunk per shard; NaN off tissue.
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
