"""Stage ``ingest``: the slide rescaled to the analysis resolution, as an OME-Zarr pyramid."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from iscale.arrays import apply_on, halve
from iscale.engine.execute import pending
from iscale.engine.ledger import Ledger, fingerprint
from iscale.engine.plan import Plan, Resources, format_bytes, plan_regions
from iscale.engine.step import Step
from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.slide.base import SlideReader
from iscale.slide.flat_reader import DecodedImage
from iscale.slide.reader import open_slide
from iscale.slide.resample import choose_level, resample, source_region
from iscale.store import layout
from iscale.store.ome import ome_metadata
from iscale.store.run_store import RunStore

RGBA_AND_COPIES = 14
"""Bytes per source pixel at the peak: the reader's RGBA, the RGB that is made of it, and a decoder's tiles."""


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
        "ome": ome_metadata(slide.name, n_levels, grid.pixel_size_um),
        "source": str(slide.resolve()),
        "slide_fingerprint": slide_fingerprint,
        "raw_shape_px": list(grid.raw_shape_px),
        "raw_pixel_size_um": grid.raw_pixel_size_um,
        "pixel_size_um": grid.pixel_size_um,
        "content_shape_px": list(grid.content_shape_px),
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
