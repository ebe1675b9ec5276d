"""Stage ``features``: the encoder mapped over regions of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iscale.encoders import get_encoder
from iscale.encoders.base import FeatureGroup
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Resources, plan_regions
from iscale.engine.step import Step
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.store import layout
from iscale.store.run_store import RunStore


@dataclass(frozen=True)
class FeaturesContext:
    """What a task needs to know: where the store is, and which encoder on which device."""

    store: RunStore
    encoder: str
    device: str


def encode_region(context: FeaturesContext, region: Region) -> int:
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


def _encode_tile(context: FeaturesContext, tile: Region, tissue: NDArray[np.bool_]) -> None:
    encoder = get_encoder(context.encoder, context.device)
    image = read_with_halo(context.store, tile.scaled(SUPERPIXEL_PX), encoder.halo_px)
    encoded = encoder.encode(image, tissue)
    for group in encoder.groups:
        values = _off_tissue_is_nan(encoded[group.name], tissue, group).astype(np.float16)
        context.store.write(f"features/{group.name}", tile.coarsened(group.stride), values)


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


def _off_tissue_is_nan(
    values: NDArray[np.float32], tissue: NDArray[np.bool_], group: FeatureGroup
) -> NDArray[np.float32]:
    rows, columns = (n // group.stride for n in tissue.shape)
    kept = tissue.reshape(rows, group.stride, columns, group.stride).any(axis=(1, 3))
    return np.where(kept, values, np.float32(np.nan))


def features_step(
    store: RunStore,
    grid: SlideGrid,
    encoder_name: str,
    device: str,
    *,
    inputs: tuple[str, ...],
    resources: Resources,
) -> Step:
    """The step that fills ``features/``.

    Parameters
    ----------
    inputs
        Fingerprints of the image and of the tissue mask.
    """
    encoder = get_encoder(encoder_name, device)
    shape, side = grid.superpixel_shape, layout.SHARD_SUPERPIXELS
    n_features = sum(len(group.features) for group in encoder.groups)

    tile_px = min(side, shape[0]) * SUPERPIXEL_PX, min(side, shape[1]) * SUPERPIXEL_PX
    task_bytes = encoder.task_bytes(tile_px) + 2 * 2 * n_features * side**2

    arrays = {
        group.name: layout.features(group.name, len(group.features), shape, group.stride) for group in encoder.groups
    }

    def prepare() -> None:
        attributes = {
            "encoder": encoder.identity(),
            "inputs": dict(zip(("image", "tissue"), inputs, strict=True)),
            "groups": [
                {"name": g.name, "features": list(g.features), "stride": g.stride, "smooth": g.smooth}
                for g in encoder.groups
            ],
        }
        store.make_group("features", attributes)
        for group in encoder.groups:
            store.make(arrays[group.name], {"smooth_superpixels": group.smooth, "stride_superpixels": group.stride})

    return Step(
        name="features",
        kernel=encode_region,
        context=FeaturesContext(store, encoder_name, device),
        plan=plan_regions(
            "features",
            shape,
            (side, side),
            lambda rows_columns: task_bytes + rows_columns[0] * rows_columns[1],
            resources,
        ),
        fingerprint=fingerprint("features", encoder.identity(), *inputs),
        outputs=store.metadata("features", *(array.path for array in arrays.values())),
        prepare=prepare,
        disk_bytes=sum(array.bytes for array in arrays.values()),
        files=sum(array.files for array in arrays.values()),
        note=f"encoder {encoder.name}, {n_features} features",
    )
