"""What tasks do: measure haematoxylin, and tell which superpixels are cells; a shard at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.refine.nuclei import (
    STAINED,
    blocks,
    dense_part,
    green,
    haematoxylin,
    haematoxylin_weights,
    histogram,
    no_counts,
)
from iscale.store import layout
from iscale.store.run_store import RunStore
from iscale.tissue.colour import Glass, Mask
from iscale.tissue.user_mask import UserMask, read_user_mask

STATISTIC, CELLS = "tissue/haematoxylin", "tissue/cells"


@dataclass(frozen=True)
class RefineContext:
    """What a task needs to know.

    Attributes
    ----------
    level
        Pyramid level on which haematoxylin is measured.
    user_cells
        The user's mask, which is taken instead.
    mask
        Its fingerprint, which tells a worker when the mask it holds is old.
    """

    store: RunStore
    grid: SlideGrid
    level: int = 0
    user_cells: Path | None = None
    mask: str = ""


def measure_region(context: RefineContext, region: Region) -> dict[str, list[int]]:
    """Measure haematoxylin in a region, a shard at a time; returns histograms of its pixels and of its superpixels."""
    store, side = context.store, SUPERPIXEL_PX // 2**context.level
    image, of_pixels, of_superpixels = store.array(f"image/{context.level}"), no_counts(), no_counts()
    glass = glass_of(store)
    for shard in region.tiles(layout.SHARD_SUPERPIXELS):
        tissue = np.asarray(store.array("tissue/mask")[shard.slices])
        if not tissue.any():
            continue
        pixels = np.asarray(image[(slice(None), *shard.scaled(side).slices)])
        at = _density_of_glass(glass, context.grid, shard)[tissue]
        density = blocks(haematoxylin(pixels), side)[tissue]
        density -= (at @ haematoxylin_weights()).astype(np.float32)[:, None]
        stained = blocks(green(pixels), side)[tissue] > at[:, 1, None] + STAINED
        statistic = np.full(shard.shape, np.nan, np.float16)
        statistic[tissue] = dense_part(density)
        store.write(STATISTIC, shard, statistic)
        of_pixels += histogram(density[stained])
        of_superpixels += histogram(statistic[tissue].astype(np.float32))
    return {"pixels": of_pixels.tolist(), "superpixels": of_superpixels.tolist()}


def glass_of(store: RunStore) -> Glass | None:
    """The colour of glass, where the tissue was found by it; a user's mask of the tissue leaves it unknown."""
    model = store.attributes("tissue").get("model")
    return Glass.from_json(model["glass"]) if model else None


def _density_of_glass(glass: Glass | None, grid: SlideGrid, shard: Region) -> NDArray[np.float32]:
    """Density (y, x, 3) of glass at the superpixels of a shard; that of pure white where it is not known."""
    if glass is None:
        return np.zeros((*shard.shape, 3), np.float32)
    height, width = grid.superpixel_shape
    rows, columns = (np.arange(shard.y0, shard.y1) + 0.5) / height, (np.arange(shard.x0, shard.x1) + 0.5) / width
    return glass.density(rows, columns)


def tissue_region(context: RefineContext, region: Region) -> list[int]:
    """Take all tissue of a region as cells; returns what `cells_region` does."""
    return _write_cells(context.store, region, lambda shard: np.ones(shard.shape, bool))


def cells_region(context: RefineContext, region: Region) -> list[int]:
    """Tell the cells of a region by the threshold; returns how many superpixels are tissue, and how many cells."""
    threshold = np.float32(context.store.attributes(STATISTIC)["threshold"])
    return _write_cells(context.store, region, lambda shard: _above(context.store, shard, threshold))


def _above(store: RunStore, shard: Region, threshold: np.float32) -> Mask:
    # NaN, off tissue, is above nothing.
    return np.asarray(np.asarray(store.array(STATISTIC)[shard.slices]).astype(np.float32) > threshold)


@lru_cache(maxsize=1)
def _user_mask(path: Path, grid: SlideGrid, mask: str) -> UserMask:
    del mask
    return read_user_mask(path, grid)


def user_cells_region(context: RefineContext, region: Region) -> list[int]:
    """Take the cells of a region from the user's mask, where it is on tissue; returns what `cells_region` does."""
    assert context.user_cells is not None
    mask = _user_mask(context.user_cells, context.grid, context.mask)
    return _write_cells(context.store, region, mask.superpixels)


def _write_cells(store: RunStore, region: Region, cells_of: Callable[[Region], Mask]) -> list[int]:
    counts = [0, 0]
    for shard in region.tiles(layout.MASK_SHARD_SUPERPIXELS):
        tissue = np.asarray(store.array("tissue/mask")[shard.slices])
        if not tissue.any():
            continue
        cells = tissue & cells_of(shard)
        store.write(CELLS, shard, cells)
        counts = [counts[0] + int(tissue.sum()), counts[1] + int(cells.sum())]
    return counts
