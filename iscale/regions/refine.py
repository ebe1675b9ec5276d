"""Stage ``refine``: which superpixels are likely to hold nuclei; expression elsewhere is refined to 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from iscale.arrays import block_cells
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Resources, plan_regions
from iscale.engine.step import Kernel, Step
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.plots.charts import draw_histogram
from iscale.regions import nuclei
from iscale.slide.base import file_fingerprint
from iscale.slide.colour import Glass, Mask
from iscale.slide.user_mask import UserMask, read_user_mask
from iscale.store import layout
from iscale.store.run_store import RunStore

if TYPE_CHECKING:
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers

STATISTIC, CELLS = "tissue/haematoxylin", "tissue/cells"


@dataclass(frozen=True)
class RefineContext:
    """What a task needs to know: the pyramid level on which haematoxylin is measured, or the user's mask.

    The mask's fingerprint tells a worker when the one that it holds is old.
    """

    store: RunStore
    grid: SlideGrid
    level: int = 0
    user_cells: Path | None = None
    mask: str = ""


def measure_region(context: RefineContext, region: Region) -> dict[str, list[int]]:
    """Measure haematoxylin in a region, a shard at a time; returns histograms of its pixels and of its superpixels."""
    store, side = context.store, SUPERPIXEL_PX // 2**context.level
    image, of_pixels, of_superpixels = store.array(f"image/{context.level}"), nuclei.no_counts(), nuclei.no_counts()
    glass = glass_of(store)
    for shard in region.tiles(layout.SHARD_SUPERPIXELS):
        tissue = np.asarray(store.array("tissue/mask")[shard.slices])
        if not tissue.any():
            continue
        pixels = np.asarray(image[(slice(None), *shard.scaled(side).slices)])
        at = _density_of_glass(glass, context.grid, shard)[tissue]
        density = block_cells(nuclei.haematoxylin(pixels), side)[tissue]
        density -= (at @ nuclei.haematoxylin_weights()).astype(np.float32)[:, None]
        stained = block_cells(nuclei.green(pixels), side)[tissue] > at[:, 1, None] + nuclei.STAINED
        statistic = np.full(shard.shape, np.nan, np.float16)
        statistic[tissue] = nuclei.dense_part(density)
        store.write(STATISTIC, shard, statistic)
        of_pixels += nuclei.histogram(density[stained])
        of_superpixels += nuclei.histogram(statistic[tissue].astype(np.float32))
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


STATISTIC_NAME = f"optical density of haematoxylin that {nuclei.DENSE_SHARE:.0%} of a superpixel reach"
FIGURE = "refine/threshold.png"

COARSEST_UM = 1.5
"""Nuclei, 5 to 10 um wide, are still seen at this pixel size: then a quarter of the bytes is read."""

NUCLEI_SEEN_UM = 2.5
"""With larger pixels no nucleus is seen, and a superpixel is as large as many cells: then all tissue is likely to hold
nuclei."""

BYTES_PER_PX = 44
SPARE_BYTES = 2**20
MASK_BYTES = 64 * 2**20
"""The user's mask is held at its own size."""

VERSION = 1
"""Raised when the cells of the same slide change."""


def refine_steps(
    store: RunStore, grid: SlideGrid, user_cells: Path | None, *, inputs: tuple[str, str], resources: Resources
) -> Iterator[Step]:
    """The steps that fill ``tissue/cells``: haematoxylin is measured and split by a threshold.

    A user's mask replaces both, and so does the tissue where pixels are too large to show nuclei. Every superpixel is
    decided by itself: one is about a cell, so a lone one is no speck, and a gap no hole. ``inputs`` are the
    fingerprints of the image and of the tissue.
    """
    if user_cells:
        made = fingerprint("refine", {"user_cells": file_fingerprint(user_cells), **grid.bounds_parameter}, *inputs)
        context = RefineContext(store, grid, 0, user_cells, made)
        yield _cells_step(context, user_cells_region, f"from {user_cells.name}", made, inputs, resources)
        return
    finer = 2 * grid.pixel_size_um <= COARSEST_UM
    context = RefineContext(store, grid, int(finer and len(layout.level_shapes(grid.shape_px)) > 1))
    made = fingerprint("refine", {"version": VERSION, "level": context.level}, *inputs)
    if grid.pixel_size_um > NUCLEI_SEEN_UM:
        note = f"all tissue: no nuclei are seen at {grid.pixel_size_um:g} um per pixel"
        yield _cells_step(context, tissue_region, note, made, inputs, resources)
        return
    yield _nuclei_step(context, made, resources)
    yield _cells_step(context, cells_region, "", made, inputs, resources)


def _nuclei_step(context: RefineContext, made: str, resources: Resources) -> Step:
    store, shape, side = context.store, context.grid.superpixel_shape, layout.SHARD_SUPERPIXELS
    array = layout.plane(STATISTIC, shape)
    pixels = (min(side, max(shape)) * SUPERPIXEL_PX // 2**context.level) ** 2

    def prepare() -> None:
        store.make(array, {"long_name": STATISTIC_NAME})

    def finish(values: list[dict[str, list[int]]]) -> None:
        counts = {kind: np.sum([value[kind] for value in values], axis=0) for kind in ("pixels", "superpixels")}
        ends = {"low": nuclei.LOWEST, "high": nuclei.HIGHEST}
        threshold = nuclei.find_threshold(counts["pixels"], nuclei.edges())
        store.set_attributes(
            STATISTIC,
            threshold=threshold.value,
            how=threshold.how,
            glass="of the slide" if glass_of(store) else "pure white",
            pixel_size_um=context.grid.pixel_size_um * 2**context.level,
            histogram=ends | {kind: count.tolist() for kind, count in counts.items()},
        )
        _draw(store.folder / FIGURE, counts["superpixels"], threshold.value)

    return Step(
        name="refine/nuclei",
        kernel=measure_region,
        context=context,
        plan=plan_regions("refine/nuclei", shape, (side, side), lambda _: BYTES_PER_PX * pixels, resources),
        fingerprint=made,
        outputs=(*store.metadata(STATISTIC), store.folder / FIGURE),
        prepare=prepare,
        finish=finish,
        disk_bytes=array.bytes,
        files=array.files + 1,
    )


def _draw(path: Path, counts: NDArray[np.int64], threshold: float) -> None:
    """Draw what the threshold splits, without empty ends."""
    there = np.flatnonzero((counts > 0) | (nuclei.edges()[:-1] <= threshold) & (threshold < nuclei.edges()[1:]))
    shown = slice(there[0], there[-1] + 1)
    title = "superpixels by haematoxylin: above the threshold they are likely to hold nuclei"
    draw_histogram(path, counts[shown], nuclei.edges()[there[0] : there[-1] + 2], threshold, title, STATISTIC_NAME)


def _cells_step(
    context: RefineContext, kernel: Kernel, note: str, made: str, inputs: tuple[str, str], resources: Resources
) -> Step:
    store, shape, user_cells = context.store, context.grid.superpixel_shape, context.user_cells
    array, side = layout.mask(CELLS, shape), layout.MASK_SHARD_SUPERPIXELS
    per_superpixel = 32 if user_cells else 8
    task_bytes = per_superpixel * side**2 + SPARE_BYTES + MASK_BYTES * bool(user_cells)

    def prepare() -> None:
        made_of = dict(zip(("image", "tissue"), inputs, strict=True))
        source = str(user_cells or note or "automatic")
        store.make(array, {"long_name": "superpixels likely to hold nuclei", "source": source, "inputs": made_of})

    def finish(counts: list[list[int]]) -> None:
        tissue, cells = (int(n) for n in np.sum(counts, axis=0))
        store.set_attributes(CELLS, tissue_superpixels=tissue, cell_superpixels=cells)

    return Step(
        name="refine/cells",
        kernel=kernel,
        context=context,
        plan=plan_regions("refine/cells", shape, (side, side), lambda _: task_bytes, resources),
        fingerprint=made,
        outputs=store.metadata(CELLS),
        prepare=prepare,
        finish=finish,
        disk_bytes=array.bytes,
        files=array.files,
        note=note,
    )


def check(job: Job, alone: bool) -> None:
    """Read the stage's inputs before any work."""
    if job.files.user_cells:
        job.notices += [f"cells mask: {text}" for text in read_user_mask(job.files.user_cells, job.grid).notices]


def steps(job: Job, workers: Workers, made: Mapping[str, str]) -> Iterator[Step]:
    """Steps of the stage for a job (:class:`iscale.stages.Stage`)."""
    inputs = made["ingest"], made["tissue"]
    yield from refine_steps(job.store, job.grid, job.files.user_cells, inputs=inputs, resources=workers.of("cpu"))
