"""OME-Zarr 0.5: chosen genes as channels of an image of several resolutions (napari, Vitessce, Fiji).

A value of a level is the mean over the superpixels of its block that are tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.arrays import block_cells
from iscale.export.request import Request, tiles
from iscale.geometry import Region
from iscale.store.layout import GENES_PER_CHUNK, level_shapes
from iscale.store.ome import channel, image_metadata
from iscale.words import plural

COLOURS = ("FF0000", "00FF00", "0000FF", "FFFF00", "FF00FF", "00FFFF", "FF8000", "FFFFFF")
"""Colours of channels, in turn."""

SHOWN = 3
"""Channels that a viewer shows at first."""

TILE = 512
"""Side of what is written at a time, and of a file."""

CHUNK = 256
"""Side of what a viewer reads at a time."""

BRIGHTEST = 0.998
"""Quantile of the tissue that is shown brightest: a few superpixels would darken all others."""


def write(request: Request) -> str:
    """Write the image's group."""
    group = zarr.open_group(request.part, mode="w", zarr_format=3)
    levels = write_levels(group, request)
    step = request.superpixel_um
    corner_um = (request.region.y0 * step, request.region.x0 * step)
    metadata = image_metadata("expression", len(levels.shapes), step, _channels(request, levels), corner_um)
    group.attrs.update({"ome": metadata, "iscale": {"values": "expected counts per superpixel"}})
    return levels.text(request)


def _channels(request: Request, levels: Levels) -> list[dict[str, Any]]:
    most, bright = (np.maximum(levels.most, levels.bright).tolist(), levels.bright.tolist())
    return [
        channel(gene, COLOURS[i % len(COLOURS)], (0.0, most[i]), (0.0, bright[i]), active=i < SHOWN)
        for i, gene in enumerate(request.genes)
    ]


@dataclass(frozen=True)
class Levels:
    """Height and width of every level, the finest first; (gene,) largest values, and those to be shown brightest."""

    shapes: tuple[tuple[int, int], ...]
    most: NDArray[np.float64]
    bright: NDArray[np.float64]

    def text(self, request: Request) -> str:
        """What they are, for people."""
        h, w = self.shapes[0]
        genes, resolutions = plural(len(request.genes), "gene"), plural(len(self.shapes), "resolution")
        return f"{genes} x {h} x {w} superpixels, {resolutions}; 0 off tissue."


def write_levels(into: zarr.Group, request: Request) -> Levels:
    """Write arrays ``0``, ``1`` ...: (c, y, x) float32, expected counts per superpixel, 0 off tissue.

    Means are exact: how many superpixels of tissue each is of is kept beside the levels while they are made.
    """
    shapes = level_shapes(request.region.shape)
    n = len(request.genes)
    counts = into.create_group("tissue-counts")
    for level, shape in enumerate(shapes):
        sides = tuple(min(TILE, -(-side // CHUNK) * CHUNK) for side in shape)
        into.create_array(
            str(level),
            shape=(n, *shape),
            dtype="float32",
            chunks=(1, CHUNK, CHUNK),
            shards=(1, *sides),
            fill_value=0.0,
            dimension_names=("c", "y", "x"),
        )
        counts.create_array(str(level), shape=shape, dtype="uint32", chunks=(TILE, TILE), fill_value=0)
    work = [tiles(Region(0, h, 0, w), TILE) for h, w in shapes]
    with request.counted(sum(map(len, work))) as done:
        most = np.zeros(n)
        for tile in work[0]:
            most = np.maximum(most, _finest(into, counts, request, tile))
            done()
        for level in range(1, len(shapes)):
            for tile in work[level]:
                _coarser(into, counts, level, tile)
                done()
    bright = _bright(into, counts, len(shapes) - 1, most)
    del into["tissue-counts"]
    return Levels(shapes, most, bright)


def _finest(into: zarr.Group, counts: zarr.Group, request: Request, tile: Region) -> NDArray[np.float64]:
    """Write a tile of the finest level; the largest value of each gene."""
    region = request.region
    place = Region(tile.y0 + region.y0, tile.y1 + region.y0, tile.x0 + region.x0, tile.x1 + region.x0)
    found = []
    for start, names in request.blocks(GENES_PER_CHUNK):
        values = np.empty((len(names), *tile.shape), np.float32)
        for piece in tiles(place):
            values[(slice(None), *piece.within(place))] = request.source.read(names, piece)
        there = np.isfinite(values[0])
        if start == 0:
            if not there.any():
                return np.zeros(len(request.genes))
            _array(counts, 0)[tile.slices] = there.astype(np.uint32)
        values = np.nan_to_num(values, nan=0.0)
        for row, one in enumerate(values, start):
            # A file at a time: when a disk is full, nothing is still being written while it is removed.
            _array(into, 0)[(row, *tile.slices)] = one
        found.append(values.max(axis=(1, 2)))
    return np.concatenate(found).astype(np.float64)


def _coarser(into: zarr.Group, counts: zarr.Group, level: int, tile: Region) -> None:
    """Write a tile of a level from the one before."""
    finer, sizes = _array(into, level - 1), _array(counts, level - 1)
    place = tile.scaled(2).slices  # what goes beyond the edge is not there, and nothing of tissue
    held = block_cells(np.asarray(sizes[place]), 2)
    total = held.sum(axis=-1)
    if not total.any():
        return
    _array(counts, level)[tile.slices] = total
    for row in range(finer.shape[0]):
        values = block_cells(np.asarray(finer[(row, *place)]), 2)
        sums = (values * held).sum(axis=-1, dtype=np.float64)
        _array(into, level)[(row, *tile.slices)] = (sums / np.maximum(total, 1)).astype(np.float32)


def _bright(into: zarr.Group, counts: zarr.Group, level: int, most: NDArray[np.float64]) -> NDArray[np.float64]:
    """(gene,) a high quantile over the tissue of the coarsest level; the maximum where that is nothing."""
    there = np.asarray(_array(counts, level)[...]) > 0
    array = _array(into, level)
    bright = [np.quantile(np.asarray(array[row])[there], BRIGHTEST) for row in range(len(most))]
    return np.where(np.array(bright) > 0, bright, np.where(most > 0, most, 1.0))


def _array(group: zarr.Group, level: int) -> Any:
    return group[str(level)]
