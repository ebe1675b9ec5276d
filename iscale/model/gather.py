"""Features of the training spots' discs, collected tile by tile from the store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.encoders.base import FeatureGroup
from iscale.features.read import read_features
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.model.discs import disc_offsets
from iscale.store.layout import SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore


def gather_discs(
    store: RunStore, groups: Sequence[FeatureGroup], spots: TrainingSpots, grid: SlideGrid
) -> DiscFeatures:
    """Features of every tissue superpixel in every spot's disc.

    Spots are visited by the shard that holds their centre, so that each part of the store is read about once.
    """
    shape = grid.superpixel_shape
    centres = np.floor(spots.xy_px[:, ::-1] / SUPERPIXEL_PX).astype(np.int64)
    tiles = centres // SHARD_SUPERPIXELS
    rows: dict[int, NDArray[np.float32]] = {}
    for tile in np.unique(tiles, axis=0):
        members = np.flatnonzero((tiles == tile).all(axis=1))
        reach = int(np.ceil(spots.radius_um[members].max() / grid.superpixel_um))
        (y0, x0), (y1, x1) = centres[members].min(axis=0), centres[members].max(axis=0) + 1
        window = Region(int(y0), int(y1), int(x0), int(x1)).grown(reach, shape)
        features = read_features(store, groups, window)
        for spot in members.tolist():
            offsets = disc_offsets(spots.radius_um[spot] / grid.superpixel_um)
            rows[spot] = _disc_rows(features, window, centres[spot] + offsets)
    order = sorted(rows)
    features_of = np.concatenate([rows[spot] for spot in order])
    return DiscFeatures(features_of, np.repeat(np.array(order, np.int64), [len(rows[spot]) for spot in order]))


def _disc_rows(features: NDArray[np.float32], window: Region, at: NDArray[np.int64]) -> NDArray[np.float32]:
    """(superpixel, feature) of the places (row, column) that lie in the window and have features."""
    i, j = at[:, 0] - window.y0, at[:, 1] - window.x0
    there = (i >= 0) & (i < window.shape[0]) & (j >= 0) & (j < window.shape[1])
    values = features[:, i[there], j[there]].T
    return np.ascontiguousarray(values[~np.isnan(values).any(axis=1)])
