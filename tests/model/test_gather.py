"""The features of a spot's disc are those of the superpixels that the disc covers, wherever shards end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iscale.captures.spots import TrainingSpots
from iscale.encoders.base import FeatureGroup
from iscale.geometry import Region, SlideGrid
from iscale.model.discs import disc_offsets
from iscale.model.gather import gather_discs
from iscale.model.row_file import RowFile
from iscale.store import layout
from iscale.store.run_store import RunStore


@pytest.mark.parametrize("hold_bytes", [10**6, 0])
def test_discs_are_gathered_across_shards_and_without_what_is_off_tissue(tmp_path: Path, hold_bytes: int) -> None:
    grid = SlideGrid((4096, 4096), 0.5, 0.5)
    shape, group = grid.superpixel_shape, FeatureGroup("at", ("row", "column"))
    store = RunStore(tmp_path)
    store.create()
    mask = np.ones(shape, bool)
    mask[:, 140:] = False
    store.make_group("tissue", {})
    store.make(layout.mask("tissue/mask", shape))
    store.write("tissue/mask", Region(0, shape[0], 0, shape[1]), mask)
    store.make_group("features", {})
    store.make(layout.features("at", 2, shape, 1))
    store.write("features/at", Region(0, shape[0], 0, shape[1]), np.stack(np.indices(shape)).astype(np.float16))

    superpixels = np.array([[127, 130], [60, 139], [0, 0], [10, 200]])
    n = len(superpixels)
    spots = TrainingSpots(
        genes=(),
        counts=np.zeros((n, 0), np.float32),
        depth=np.ones(n, np.float32),
        xy_px=superpixels[:, ::-1] * 16.0 + 3,
        radius_um=np.array([27.5, 27.5, 16.0, 27.5]),
        capture=np.zeros(n, np.int64),
        captures=("D1",),
    )
    discs = gather_discs(store, (group,), spots, grid, hold_bytes=hold_bytes)
    assert isinstance(discs.features, RowFile) == (hold_bytes == 0)
    assert (np.diff(discs.spot) >= 0).all()
    for k, centre in enumerate(superpixels):
        covered = centre + disc_offsets(spots.radius_um[k] / grid.superpixel_um)
        expected = {(i, j) for i, j in covered.tolist() if i >= 0 and 0 <= j < 140}
        found = np.asarray(discs.features[np.flatnonzero(discs.spot == k)])
        assert {(int(i), int(j)) for i, j in found} == expected
        assert len(found) == len(expected)
