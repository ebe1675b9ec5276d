"""Stage ``tissue``: what of the slide is tissue, decided on an overview, then superpixel by superpixel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from iscale.arrays import block_share, pixel_mean
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Resources, plan_regions, single_task
from iscale.engine.step import Kernel, Step
from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.slide.base import file_fingerprint
from iscale.slide.colour import Array, Mask, density, strength
from iscale.slide.tissue_overview import EDGE, TISSUE, TissueModel, learn_tissue
from iscale.slide.user_mask import UserMask, read_user_mask
from iscale.store import layout
from iscale.store.run_store import RunStore


def superpixel_mask(
    pixels: npt.NDArray[np.uint8], region: Region, model: TissueModel, classes: npt.NDArray[np.uint8]
) -> Mask:
    """Which superpixels of a region are tissue.

    Each superpixel is decided by itself, from the coarse class of its place and, at an edge, from its own mean colour.
    No halo is needed.

    Parameters
    ----------
    pixels
        (y, x, 3) pixels of the region, of the pyramid level of 16 x 16 analysis pixels or a finer one: its sides are
        whole multiples of the region's.
    region
        Region of superpixels.
    model, classes
        What `learn_tissue` returned.

    Returns
    -------
    (y, x) bool
    """
    per_superpixel = pixels.shape[0] // region.shape[0]
    if pixels.shape != (region.shape[0] * per_superpixel, region.shape[1] * per_superpixel, 3):
        raise ValueError(f"pixels {pixels.shape} are not those of {region.shape} superpixels")
    tissue, edge = _shares(region, model, classes)
    undecided = (edge > 0) & (tissue + edge >= 0.5)
    mask: Mask = tissue > 0.5
    if not undecided.any():
        return mask
    h, w = (n / SUPERPIXEL_PX for n in model.shape_px)
    rows = (np.arange(region.y0, region.y1) + 0.5) / h
    columns = (np.arange(region.x0, region.x1) + 0.5) / w
    relative = density(pixel_mean(pixels, per_superpixel)) - model.glass.density(rows, columns)
    stained = strength(relative) > model.edge_density
    return np.where(undecided, stained, mask)


def _shares(region: Region, model: TissueModel, classes: npt.NDArray[np.uint8]) -> tuple[Array, Array]:
    """Shares (y, x) of each superpixel that are tissue and edge in the coarse classes."""
    if model.coarse_px >= SUPERPIXEL_PX:
        times = model.coarse_px // SUPERPIXEL_PX
        rows = np.arange(region.y0, region.y1) // times
        columns = np.arange(region.x0, region.x1) // times
        at = classes[np.ix_(rows, columns)]
        return (at == TISSUE).astype(np.float32), (at == EDGE).astype(np.float32)
    side = SUPERPIXEL_PX // model.coarse_px
    at = classes[region.scaled(side).slices]
    return block_share(at == TISSUE, side), block_share(at == EDGE, side)


OVERVIEW_PX = 4_000_000
"""The slide as a whole is judged on the finest pyramid level with at most this many pixels."""

BYTES_PER_OVERVIEW_PX = 150
BYTES_PER_SUPERPIXEL = 140

VERSION = 1
"""Raised when the mask of the same slide changes."""


@dataclass(frozen=True)
class TissueContext:
    """What a task needs to know."""

    store: RunStore
    grid: SlideGrid
    level: int
    user_mask: Path | None = None


def learn(context: TissueContext, region: Region) -> None:
    """Decide on the overview what glass, ink and tissue look like on this slide."""
    del region
    factor = 2**context.level
    overview = _pixels(context.store, context.level, None)
    model, classes = learn_tissue(overview, context.grid.pixel_size_um * factor, factor)
    context.store.put("tissue/classes", classes, ("y_coarse", "x_coarse"), long_name="coarse classes of the slide")
    context.store.set_attributes("tissue", model=asdict(model))


def mask_region(context: TissueContext, region: Region) -> int:
    """Decide a region; returns its number of tissue superpixels."""
    store, found = context.store, 0
    factor = SUPERPIXEL_PX // 2**context.level
    model = TissueModel.from_json(store.attributes("tissue")["model"])
    classes = np.asarray(store.array("tissue/classes")[...])
    for shard in region.tiles(layout.MASK_SHARD_SUPERPIXELS):
        pixels = _pixels(store, context.level, shard.scaled(factor))
        mask = superpixel_mask(pixels, shard, model, classes)
        store.write("tissue/mask", shard, mask)
        found += int(mask.sum())
    return found


@lru_cache(maxsize=1)
def _user_mask(path: Path, grid: SlideGrid) -> UserMask:
    return read_user_mask(path, grid)


def user_mask_region(context: TissueContext, region: Region) -> int:
    """Take a region from the user's mask; returns its number of tissue superpixels."""
    assert context.user_mask is not None
    mask = _user_mask(context.user_mask, context.grid).superpixels(region)
    context.store.write("tissue/mask", region, mask)
    return int(mask.sum())


def _pixels(store: RunStore, level: int, region: Region | None) -> NDArray[np.uint8]:
    """Pixels (y, x, c) of a pyramid level, or of a region of it."""
    place = (slice(None), *region.slices) if region else (...,)
    return np.ascontiguousarray(np.moveaxis(np.asarray(store.array(f"image/{level}")[place]), 0, -1))


def tissue_steps(
    store: RunStore, grid: SlideGrid, user_mask: Path | None, *, inputs: tuple[str, ...], resources: Resources
) -> Iterator[Step]:
    """The steps that fill ``tissue/``: the overview is judged, then every superpixel; a user's mask replaces both.

    Parameters
    ----------
    inputs
        Fingerprint of the image.
    """
    shapes = layout.level_shapes(grid.shape_px)
    array = layout.mask("tissue/mask", grid.superpixel_shape)

    def make_group() -> None:
        store.make_group("tissue", {"source": str(user_mask or "automatic"), "inputs": {"image": inputs[0]}})

    def make_mask() -> None:
        if user_mask:
            make_group()
        store.make(array, {"long_name": "superpixels that are tissue"})
        store.put_coordinates("tissue", grid.superpixel_shape, grid.superpixel_um)

    def finish(counts: list[int]) -> None:
        if not any(counts):
            raise InputError(
                "No tissue was found on the mother image.",
                "Draw it yourself: MotherImage/mask-raw.png (white on black) or mask.geojson.",
            )

    if user_mask:
        parameters: dict[str, object] = {"user_mask": file_fingerprint(user_mask)}
    else:
        parameters = {"version": VERSION}
        level = next((k for k, shape in enumerate(shapes) if prod(shape) <= OVERVIEW_PX), len(shapes) - 1)
        yield Step(
            name="tissue/overview",
            kernel=learn,
            context=TissueContext(store, grid, level),
            plan=single_task("tissue/overview", BYTES_PER_OVERVIEW_PX * prod(shapes[level]), resources),
            fingerprint=fingerprint("tissue", parameters, *inputs),
            outputs=store.metadata("tissue", "tissue/classes"),
            prepare=make_group,
            disk_bytes=prod(shapes[level]) // 4,
            files=1,
        )

    level = min(4, len(shapes) - 1)
    shard = min(layout.MASK_SHARD_SUPERPIXELS, max(grid.superpixel_shape))
    per_superpixel = BYTES_PER_SUPERPIXEL + 3 * (SUPERPIXEL_PX // 2**level) ** 2
    kernel: Kernel = user_mask_region if user_mask else mask_region
    yield Step(
        name="tissue/mask",
        kernel=kernel,
        context=TissueContext(store, grid, level, user_mask),
        plan=plan_regions(
            "tissue/mask",
            grid.superpixel_shape,
            (layout.MASK_SHARD_SUPERPIXELS, layout.MASK_SHARD_SUPERPIXELS),
            lambda rows_columns: per_superpixel * shard**2 + rows_columns[0] * rows_columns[1] + OVERVIEW_PX,
            resources,
        ),
        fingerprint=fingerprint("tissue", parameters, *inputs),
        outputs=store.metadata("tissue", "tissue/mask", "tissue/y", "tissue/x"),
        prepare=make_mask,
        finish=finish,
        disk_bytes=array.bytes,
        files=array.files + 2,
        note=f"from {user_mask.name}" if user_mask else "",
    )
