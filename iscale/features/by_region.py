"""Features of a `RegionEncoder`, which sees whole shards with their surroundings; and those computed elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iscale.arrays import block_view
from iscale.encoders import EncoderSpec, get_encoder
from iscale.encoders.base import FeatureGroup, RegionEncoder, StoredFeatures
from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.store import layout
from iscale.store.run_store import RunStore

FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class RegionContext:
    """What a task needs to know: where the store is, and which encoder."""

    store: RunStore
    spec: EncoderSpec


def encode_region(context: RegionContext, region: Region) -> int:
    """Encode the tissue of a region, a shard at a time; returns the number of tissue superpixels.

    The encoder always sees whole shards, at the same places and of the same shape however the slide is cut into
    regions, so the cut does not change the numbers.
    """
    store = context.store
    tissue = np.asarray(store.array("tissue/mask")[region.slices])
    for tile in region.tiles(layout.SHARD_SUPERPIXELS):
        if tissue[tile.within(region)].any():
            _encode_tile(context, tile, tissue[tile.within(region)])
    return int(tissue.sum())


def _encode_tile(context: RegionContext, tile: Region, tissue: NDArray[np.bool_]) -> None:
    encoder = get_encoder(context.spec)
    assert isinstance(encoder, RegionEncoder)
    image = read_with_halo(context.store, tile.scaled(SUPERPIXEL_PX), encoder.halo_px)
    encoded = encoder.encode(image, tissue)
    for group in encoder.groups:
        _write(context.store, group, tile, encoded[group.name], tissue)


def read_with_halo(store: RunStore, core_px: Region, halo_px: int) -> NDArray[np.uint8]:
    """Analysis image of a core and its halo: (c, y, x); beyond the slide, the slide's edge is repeated."""
    array = store.array("image/0")
    shape = array.shape[-2:]
    window = core_px.grown(halo_px, (shape[0], shape[1]))
    image = np.asarray(array[(slice(None), *window.slices)])
    y, x = core_px.within(window)
    margins = [(0, 0)] + [
        (halo_px - s.start, halo_px - (n - s.stop)) for s, n in zip((y, x), window.shape, strict=True)
    ]
    return np.pad(image, margins, mode="edge")


def _write(
    store: RunStore, group: FeatureGroup, tile: Region, values: NDArray[np.float32], tissue: NDArray[np.bool_]
) -> None:
    """Store a tile's values (feature, y, x) of a group; NaN in cells that have no tissue superpixel."""
    values = np.where(tissue_cells(tissue, group.stride), values, np.float32(np.nan))
    store.write(f"features/{group.name}", tile.coarsened(group.stride), as_float16(values, group.name))


def as_float16(values: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """Values of a group as they are stored; refused where one is too large for float16. NaN is no value."""
    largest = float(np.nanmax(np.abs(values), initial=0.0))
    if largest > FLOAT16_MAX:
        raise InputError(
            f"features/{name}: a value of {largest:g} is too large to be stored; float16 holds {FLOAT16_MAX:g}.",
            "Rescale the features (to zero mean and unit variance, say) and run again.",
        )
    return values.astype(np.float16)


def tissue_cells(tissue: NDArray[np.bool_], stride: int) -> NDArray[np.bool_]:
    """Cells of ``stride`` superpixels that have tissue: (y, x) of (y, x) superpixels."""
    return np.asarray(block_view(tissue, stride).any(axis=(1, 3)))


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
            _write(context.store, group, tile, features.read(group, tile.coarsened(group.stride)), tissue)
    return int(mask.sum())
