"""Stage ``ingest``: the slide rescaled to the analysis resolution, as an OME-Zarr pyramid.

The filter is Lanczos with three lobes (Pillow's ``LANCZOS``): when shrinking by a factor f it spans 6 f source pixels,
so what is finer than the target's Nyquist limit is removed; when enlarging it interpolates. Pillow keeps filter
positions in float32 relative to the window it is given. Work is therefore cut into tiles of 256 x 256 output pixels on
an absolute lattice, each with its own window: a pixel's value depends on the slide and the scale only, never on the
region.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from iscale.arrays import apply_on, halve
from iscale.engine.execute import pending
from iscale.engine.ledger import Ledger, fingerprint
from iscale.engine.plan import Plan, Resources, format_bytes, plan_regions
from iscale.engine.step import Step
from iscale.errors import InputError
from iscale.geometry import PATCH_PX, Region, SlideGrid
from iscale.slide.base import Pixels, SlideReader
from iscale.slide.flat_reader import DecodedImage
from iscale.slide.reader import open_slide
from iscale.store import layout
from iscale.store.ome import slide_metadata
from iscale.store.run_store import RunStore

if TYPE_CHECKING:
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers
LOBES = 3
"""Half width of the filter, in the coarser of source and output pixels."""

WHITE = 255

RGBA_AND_COPIES = 14
"""Bytes per source pixel at the peak: the reader's RGBA, the RGB that is made of it, and a decoder's tiles."""


def level_factor(raw_shape: tuple[int, int], level_shape: tuple[int, int]) -> float:
    """Full-resolution pixels per pixel of a pyramid level.

    Writers drop or fill the last row of a level, so sides are not exact multiples: a whole number is taken where the
    sides are what rounding, up or down, makes of it.

    >>> level_factor((3567, 4443), (1783, 2221)), level_factor((1000, 1000), (1000, 1000))
    (2.0, 1.0)
    """
    ratios = [raw / level for raw, level in zip(raw_shape, level_shape, strict=True)]
    mean = sum(ratios) / 2
    whole = round(mean)
    slack = (abs(raw - whole * n) for raw, n in zip(raw_shape, level_shape, strict=True))
    return float(whole) if whole >= 1 and all(s < whole for s in slack) else mean


def choose_level(levels: Sequence[tuple[int, int]], grid: SlideGrid) -> int:
    """The coarsest of the levels, given by their heights and widths, that is at least as fine as the analysis image.

    Level 0, the full resolution, where none is.
    """
    needed = (1 / grid.scale) * (1 + 1e-6)
    factors = [level_factor(levels[0], shape) for shape in levels]
    fine_enough = [(factor, -i) for i, factor in enumerate(factors) if factor <= needed]
    return -max(fine_enough)[1] if fine_enough else 0


def _step(grid: SlideGrid, level_shape: tuple[int, int]) -> float:
    """Pixels of a level per analysis pixel; exactly 1 where the level is the analysis image already."""
    value = 1 / (grid.scale * level_factor(grid.raw_shape_px, level_shape))
    return 1.0 if math.isclose(value, 1.0, rel_tol=1e-9) else value


def source_region(grid: SlideGrid, level_shape: tuple[int, int], out: Region) -> Region | None:
    """The window of a level of (h, w) px that `resample` needs for a region of the analysis image; None in the padding.

    The region is at best made of whole 256 px patches: else the patches it touches are computed.
    """
    h, w = grid.content_shape_px
    if out.y0 >= h or out.x0 >= w:
        return None
    tiles = out.coarsened(PATCH_PX).scaled(PATCH_PX)
    scale = _step(grid, level_shape)
    y0, y1 = _span(tiles.y0, min(tiles.y1, h), scale, level_shape[0])
    x0, x1 = _span(tiles.x0, min(tiles.x1, w), scale, level_shape[1])
    return Region(y0, y1, x0, x1)


def resample(
    window: Pixels, window_region: Region, out: Region, grid: SlideGrid, level_shape: tuple[int, int]
) -> Pixels:
    """Pixels (y, x, 3) of a region of the analysis image, bit for bit the same whatever region it is part of.

    They are made of the pixels (y, x, 3) of ``window_region`` of the level, at least `source_region` of ``out``. Beyond
    the slide's content all is white.
    """
    result = np.full((*out.shape, 3), WHITE, np.uint8)
    content = grid.content_shape_px
    scale = _step(grid, level_shape)
    for part in out.tiles(PATCH_PX):
        if keep := part.common(Region(0, content[0], 0, content[1])):
            tile = part.coarsened(PATCH_PX).scaled(PATCH_PX).clipped(content)
            pixels = _resample_tile(window, window_region, tile, scale, level_shape)
            result[keep.within(out)] = pixels[keep.within(tile)]
    return result


def _span(start: int, stop: int, scale: float, n: int) -> tuple[int, int]:
    """Source pixels ``[lo, hi)`` of a side of ``n`` that output pixels ``[start, stop)`` are made of."""
    if scale == 1.0:
        return min(start, n - 1), max(min(stop, n), min(start, n - 1) + 1)
    reach = LOBES * max(scale, 1.0) + 1
    lo = max(0, math.floor(start * scale - reach))
    hi = min(n, math.ceil(stop * scale + reach))
    return min(lo, n - 1), max(hi, min(lo, n - 1) + 1)


def _resample_tile(
    window: Pixels, window_region: Region, tile: Region, scale: float, level_shape: tuple[int, int]
) -> Pixels:
    """One lattice tile, from the same source pixels whatever window they came in."""
    y0, y1 = _span(tile.y0, tile.y1, scale, level_shape[0])
    x0, x1 = _span(tile.x0, tile.x1, scale, level_shape[1])
    source = window[Region(y0, y1, x0, x1).within(window_region)]
    top, bottom = tile.y0 * scale - y0, tile.y1 * scale - y0
    left, right = tile.x0 * scale - x0, tile.x1 * scale - x0
    # The last analysis pixel may reach beyond the level, by the rounding of sides: repeat its edge.
    below, beyond = (max(0, math.ceil(far) - n) for far, n in ((bottom, y1 - y0), (right, x1 - x0)))
    if below or beyond:
        source = np.pad(source, ((0, below), (0, beyond), (0, 0)), mode="edge")
    if scale == 1.0:
        return source[: tile.shape[0], : tile.shape[1]]
    height, width = tile.shape
    image = Image.fromarray(np.ascontiguousarray(source))
    # Pillow orders its two passes by cost, so by the tile's shape, and rounds between them: give it one at a time.
    rows = image.height
    image = image.resize((width, rows), Image.Resampling.LANCZOS, box=(left, 0, right, rows))
    image = image.resize((width, height), Image.Resampling.LANCZOS, box=(0, top, width, bottom))
    return np.asarray(image)


@dataclass(frozen=True)
class IngestContext:
    """What a task of the finest level needs to know; ``decoded`` is read instead of a slide without random access."""

    store: RunStore
    slide: Path
    decoded: Path | None
    grid: SlideGrid


@dataclass(frozen=True)
class DecodeContext:
    """A slide without random access, and the plain array that is made of it."""

    slide: Path
    decoded: Path


@dataclass(frozen=True)
class LevelContext:
    """What a task of a coarser level needs to know; ``device`` as for `iscale.arrays.apply_on`."""

    store: RunStore
    level: int
    device: str = "cpu"


@lru_cache(maxsize=1)
def _reader(slide: Path, decoded: Path | None) -> SlideReader:
    reader = open_slide(slide)
    return DecodedImage(decoded, reader) if decoded else reader


def rescale_region(context: IngestContext, region: Region) -> None:
    """Rescale a region of the finest level, a shard at a time."""
    reader = _reader(context.slide, context.decoded)
    level = choose_level(reader.levels, context.grid)
    for tile in region.tiles(layout.SHARD_PX):
        window = source_region(context.grid, reader.levels[level], tile)
        if window is None:
            continue
        pixels = resample(reader.read(level, window), window, tile, context.grid, reader.levels[level])
        context.store.write("image/0", tile, np.moveaxis(pixels, -1, 0))


def halve_region(context: LevelContext, region: Region) -> None:
    """Make a region of a level from the finer one, a shard at a time."""
    finer = context.store.array(f"image/{context.level - 1}")
    for tile in region.tiles(layout.SHARD_PX):
        pixels = np.asarray(finer[(slice(None), *tile.scaled(2).clipped(finer.shape[-2:]).slices)])
        coarser = apply_on(context.device, halve, pixels, channels_first=True)
        context.store.write(f"image/{context.level}", tile, coarser)


def decode_whole(context: DecodeContext, region: Region) -> None:
    """Decode a slide without random access to a plain array, in a process of its own whose memory goes with it."""
    del region
    context.decoded.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "iscale.slide.reader", str(context.slide), str(context.decoded)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        problem, _, remedy = done.stderr.strip().partition("\n  ")
        raise InputError(problem, remedy)


def ingest_steps(
    store: RunStore,
    slide: Path,
    grid: SlideGrid,
    slide_fingerprint: str,
    *,
    resources: Resources,
    device: str = "cpu",
) -> Iterator[Step]:
    """The steps that fill ``image/``, one per pyramid level, and before them the decoding of a slide that needs it.

    ``device`` computes the coarser levels; it changes no byte, and so is not in the fingerprint.
    """
    reader = _reader(slide, None)
    parameters = {"grid": [*grid.raw_shape_px, grid.raw_pixel_size_um, grid.pixel_size_um]}
    identity = fingerprint("ingest", parameters, slide_fingerprint)
    shapes = layout.level_shapes(grid.shape_px)
    decoded = store.scratch / "slide.npy" if reader.needs_decoding else None
    source_px = _source_pixels_per_shard(reader, grid)

    def level_step(level: int, shape: tuple[int, int]) -> Step:
        array, shard = layout.image_level(level, shape), layout.SHARD_PX
        tile_bytes = RGBA_AND_COPIES * source_px + 12 * shard**2 if level == 0 else 36 * shard**2

        def prepare() -> None:
            if level == 0:
                store.make_group("image", _attributes(slide, grid, slide_fingerprint, len(shapes)))
            store.make(array)

        def finish(_: list[object]) -> None:
            if level == len(shapes) - 1:
                shutil.rmtree(store.scratch, ignore_errors=True)

        return Step(
            name=f"image/{level}",
            kernel=halve_region if level else rescale_region,
            context=LevelContext(store, level, device)
            if level
            else IngestContext(store, slide.resolve(), decoded, grid),
            plan=plan_regions(f"image/{level}", shape, (shard, shard), lambda _: tile_bytes, resources),
            fingerprint=identity,
            outputs=store.metadata("image", array.path),
            prepare=prepare,
            finish=finish,
            disk_bytes=array.bytes,
            files=array.files,
            note="" if level else f"pixels of {grid.raw_pixel_size_um:g} um to {grid.pixel_size_um:g} um",
        )

    finest = level_step(0, shapes[0])
    if decoded and pending(finest, Ledger(store.ledgers, finest.name)):
        yield _decode_step(slide, decoded, reader, identity)
    yield finest
    for level, shape in enumerate(shapes[1:], start=1):
        yield level_step(level, shape)


def _attributes(slide: Path, grid: SlideGrid, slide_fingerprint: str, n_levels: int) -> dict[str, object]:
    """What ``image/`` says of itself."""
    return {
        "ome": slide_metadata(slide.name, n_levels, grid.pixel_size_um),
        "source": str(slide.resolve()),
        "slide_fingerprint": slide_fingerprint,
        "raw_shape_px": list(grid.raw_shape_px),
        "raw_pixel_size_um": grid.raw_pixel_size_um,
        "pixel_size_um": grid.pixel_size_um,
        "content_shape_px": list(grid.content_shape_px),
        **grid.bounds_parameter,
    }


def _decode_step(slide: Path, decoded: Path, reader: SlideReader, identity: str) -> Step:
    return Step(
        name="image/decode",
        kernel=decode_whole,
        context=DecodeContext(slide.resolve(), decoded),
        plan=Plan((1, 1), (1, 1), (Region(0, 1, 0, 1),), 0),
        fingerprint=identity,
        outputs=(decoded,),
        disk_bytes=3 * reader.levels[0][0] * reader.levels[0][1],
        files=1,
        note=f"no random access: decoded once, with {format_bytes(reader.decoding_bytes)} outside the budget",
    )


def _source_pixels_per_shard(reader: SlideReader, grid: SlideGrid) -> int:
    """Pixels of the slide that a shard of the analysis image is made of."""
    shape = reader.levels[choose_level(reader.levels, grid)]
    window = source_region(grid, shape, Region(0, layout.SHARD_PX, 0, layout.SHARD_PX).clipped(grid.shape_px))
    return window.area if window else 0


def steps(job: Job, workers: Workers, made: Mapping[str, str]) -> Iterator[Step]:
    """Steps of the stage for a job (:class:`iscale.stages.Stage`)."""
    device = "cpu" if workers.device == "auto" else workers.device
    yield from ingest_steps(
        job.store, job.files.mother_image, job.grid, job.slide_fingerprint, resources=workers.of("cpu"), device=device
    )
