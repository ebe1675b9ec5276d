"""Features of the training spots' discs, collected tile by tile from the store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.encoders.base import FeatureGroup
from iscale.features.read import read_features
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.model.discs import disc_rows
from iscale.store.layout import SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore


def gather_discs(
    store: RunStore, groups: Sequence[FeatureGroup], spots: TrainingSpots, grid: SlideGrid
) -> DiscFeatures:
    """Features of every tissue superpixel in every spot's disc.

    Spots are visited by the shard that holds their centre, so that each part of the store is read about once.
    """
    centres = np.floor(spots.xy_px[:, ::-1] / SUPERPIXEL_PX).astype(np.int64)
    tiles = centres // SHARD_SUPERPIXELS
    rows, owners = [], []
    for tile in np.unique(tiles, axis=0):
        members = np.flatnonzero((tiles == tile).all(axis=1))
        own, at = disc_rows(centres[members], spots.radius_um[members], grid.superpixel_um, grid.superpixel_shape)
        (y0, x0), (y1, x1) = at.min(axis=0).tolist(), (at.max(axis=0) + 1).tolist()
        features = read_features(store, groups, Region(y0, y1, x0, x1))
        values = features[:, at[:, 0] - y0, at[:, 1] - x0].T
        there = ~np.isnan(values).any(axis=1)
        rows.append(values[there])
        owners.append(members[own[there]])
    spot = np.concatenate(owners)
    order = np.argsort(spot, kind="stable")
    return DiscFeatures(np.concatenate(rows)[order], spot[order])
