"""Features that were computed elsewhere, brought into the store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iscale.encoders import EncoderSpec, get_encoder
from iscale.encoders.base import StoredFeatures
from iscale.features.by_region import as_float16, off_tissue_is_nan
from iscale.geometry import Region, SlideGrid
from iscale.store import layout
from iscale.store.run_store import RunStore


@dataclass(frozen=True)
class StoredContext:
    """What a task needs to know: where the store is, which features, and the grid that they must fit."""

    store: RunStore
    spec: EncoderSpec
    grid: SlideGrid


def copy_region(context: StoredContext, region: Region) -> int:
    """Copy the tissue of a region, a shard at a time; returns the number of tissue superpixels."""
    features = get_encoder(context.spec)
    assert isinstance(features, StoredFeatures)
    features.check(context.grid)
    mask = np.asarray(context.store.array("tissue/mask")[region.slices])
    for tile in region.tiles(layout.SHARD_SUPERPIXELS):
        tissue = mask[tile.within(region)]
        if not tissue.any():
            continue
        for group in features.groups:
            cells = tile.coarsened(group.stride)
            values = off_tissue_is_nan(features.read(group, cells), tissue, group)
            context.store.write(f"features/{group.name}", cells, as_float16(values, group.name))
    return int(mask.sum())
