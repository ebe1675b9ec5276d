"""A synthetic slide as a pyramidal tiled JPEG TIFF, written tile by tile: memory does not grow with the slide."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffWriter

from iscale.demo.painting import paint
from iscale.demo.tissue import SyntheticTissue
from iscale.geometry import Region

TILE_PX = 512
DOWNSAMPLE = 4
"""From one level of the pyramid to the next, as in SVS."""
SMALLEST_PX = 1024
"""No further level below a picture of this size."""
QUALITY = 88


def write_synthetic_slide(
    path: Path,
    shape_px: tuple[int, int],
    seed: int = 0,
    tissue_fraction: float = 0.45,
    pixel_size_um: float = 0.5,
) -> SyntheticTissue:
    """Write a slide of a synthetic tissue, with its pixel size in the resolution tags.

    Parameters
    ----------
    path
        The file, ``.tif`` or ``.tiff``.
    shape_px
        Height and width.
    seed
        Which tissue.
    tissue_fraction
        Share of the slide that is tissue.
    pixel_size_um
        Side of a pixel, in um.

    Returns
    -------
    tissue
        What was painted.
    """
    tissue = SyntheticTissue(shape_px, pixel_size_um, seed, tissue_fraction)
    shapes = _level_shapes(shape_px)
    partial = path.with_name(path.name + ".partial")
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, TiffWriter(partial, bigtiff=True) as writer:
        for level, shape in enumerate(shapes):
            finer = _TileStore(Path(scratch) / f"{level - 1}", shapes[level - 1]) if level else None
            tiles = finer.read_coarse(shape) if finer else (paint(tissue, r) for r in _tiles(shape))
            if level + 1 < len(shapes):
                tiles = _TileStore(Path(scratch) / f"{level}", shape).keep_small(tiles)
            per_cm = 1e4 / (pixel_size_um * DOWNSAMPLE**level)
            writer.write(
                (_whole(tile) for tile in tiles),
                shape=(*shape, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": QUALITY},
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=1 if level else 0,
                metadata=None,
                software="iscale demo",
                maxworkers=1,
            )
    partial.replace(path)
    return tissue


def _level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    shapes = [shape]
    while max(shapes[-1]) > SMALLEST_PX:
        height, width = shapes[-1]
        shapes.append((max(1, height // DOWNSAMPLE), max(1, width // DOWNSAMPLE)))
    return shapes


def _tiles(shape: tuple[int, int]) -> Iterator[Region]:
    return Region(0, shape[0], 0, shape[1]).tiles(TILE_PX)


def _whole(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A tile of the full size: those at the border repeat their last pixels."""
    height, width = tile.shape[:2]
    if (height, width) == (TILE_PX, TILE_PX):
        return tile
    return np.pad(tile, ((0, TILE_PX - height), (0, TILE_PX - width), (0, 0)), mode="edge")


class _TileStore:
    """The tiles of one level, scaled down, in a scratch file of records of one size in the order of writing."""

    side = TILE_PX // DOWNSAMPLE
    record = side * side * 3

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path = path
        self.tiles_across = -(-shape[1] // TILE_PX)

    def keep_small(self, tiles: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Pass tiles on, and keep each scaled down."""
        with self.path.open("wb") as file:
            for tile in tiles:
                blocks = _whole(tile).reshape(self.side, DOWNSAMPLE, self.side, DOWNSAMPLE, 3)
                mean = (blocks.sum(axis=(1, 3), dtype=np.uint16) + DOWNSAMPLE**2 // 2) // DOWNSAMPLE**2
                file.write(mean.astype(np.uint8).tobytes())
                yield tile

    def read_coarse(self, shape: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
        """Tiles of the next level, of which ``shape`` is the size."""
        with self.path.open("rb") as file:
            for region in _tiles(shape):
                tile = np.empty((TILE_PX, TILE_PX, 3), dtype=np.uint8)
                for part in region.tiles(self.side):
                    block = self._read(file, part.y0 // self.side, part.x0 // self.side)
                    tile[part.within(region)] = block[: part.shape[0], : part.shape[1]]
                yield tile[: region.shape[0], : region.shape[1]]

    def _read(self, file: BinaryIO, row: int, column: int) -> NDArray[np.uint8]:
        file.seek((row * self.tiles_across + column) * self.record)
        return np.frombuffer(file.read(self.record), dtype=np.uint8).reshape(self.side, self.side, 3)
