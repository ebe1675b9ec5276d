"""Features of the training spots' discs, collected tile by tile from the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.encoders.base import FeatureGroup
from iscale.engine.progress import tell
from iscale.features.read import read_features
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.model.discs import blocks_of, disc_rows, disc_sizes
from iscale.store.layout import SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore
from iscale.store.scratch import FileRows

HOLD_BYTES = 2**30
"""Rows up to so many bytes are held in memory, where nothing else is said."""

GATHER_COPIES = 6
"""Peak of reading the features of a tile, over those features."""


def gather_discs(
    store: RunStore,
    groups: Sequence[FeatureGroup],
    spots: TrainingSpots,
    grid: SlideGrid,
    *,
    hold_bytes: int = HOLD_BYTES,
) -> DiscFeatures:
    """Features of every tissue superpixel in every spot's disc.

    Spots are visited by the shard that holds their centre, so that each part of the store is read about once. The
    rows of a spot are put where they lie if all discs are whole: in memory, from where they are moved together in the
    end, or in a file in the store's scratch folder, which is read past the gaps.

    Parameters
    ----------
    store, groups, spots, grid
        Which features, of what.
    hold_bytes
        Rows are held in memory if they take no more than this, discs taken as whole.
    """
    from iscale.model.row_file import RowFile

    n_features = sum(len(group.features) for group in groups)
    size = disc_sizes(spots.radius_um, grid.superpixel_um)
    first = np.cumsum(size) - size
    held = 4 * int(size.sum()) * n_features <= hold_bytes
    array = np.empty((int(size.sum()), n_features), np.float32) if held else None
    file = None if held else FileRows.nameless(store.scratch, n_features)
    count = np.zeros(len(size), np.int64)
    for spot, rows in _visit(store, groups, spots, grid):
        count[spot] = len(rows)
        if array is not None:
            array[first[spot] : first[spot] + len(rows)] = rows
        elif file is not None:
            file.write(int(first[spot]), rows)
    spot_of_row = np.repeat(np.arange(len(count)), count)
    if file is not None:
        return DiscFeatures(RowFile(file, np.concatenate([[0], np.cumsum(count)]), first), spot_of_row)
    assert array is not None
    return DiscFeatures(_without_gaps(array, first, count), spot_of_row)


def _without_gaps(
    array: NDArray[np.float32], first: NDArray[np.int64], count: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Move the rows of all spots together, in place."""
    end = 0
    for a, n in zip(first.tolist(), count.tolist(), strict=True):
        if a != end:
            array[end : end + n] = array[a : a + n]
        end += n
    return array[:end]


def _visit(
    store: RunStore, groups: Sequence[FeatureGroup], spots: TrainingSpots, grid: SlideGrid
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Every spot once, with the features of its disc, (row, feature) float32."""
    centres = np.floor(spots.xy_px[:, ::-1] / SUPERPIXEL_PX).astype(np.int64)
    tiles, tile_of = np.unique(centres // SHARD_SUPERPIXELS, axis=0, return_inverse=True)
    visited = 0
    for tile in range(len(tiles)):
        members = np.flatnonzero(tile_of.reshape(-1) == tile)
        own, at = disc_rows(centres[members], spots.radius_um[members], grid.superpixel_um, grid.superpixel_shape)
        (y0, x0), (y1, x1) = at.min(axis=0).tolist(), (at.max(axis=0) + 1).tolist()
        features = read_features(store, groups, Region(y0, y1, x0, x1))
        starts = np.searchsorted(own, np.arange(len(members) + 1))
        for block in blocks_of(starts, np.arange(len(members))):
            a, b = starts[block[0]], starts[block[-1] + 1]
            values = features[:, at[a:b, 0] - y0, at[a:b, 1] - x0].T
            there = np.logical_not(np.isnan(values).any(axis=1))
            for k in block.tolist():
                part = slice(starts[k] - a, starts[k + 1] - a)
                yield int(members[k]), values[part][there[part]]
        visited += len(members)
        tell(visited, len(centres))
