"""The picture of a synthetic tissue, written tile by tile as a pyramidal TIFF: memory does not grow with the slide."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffWriter

from iscale.arrays import downsampled
from iscale.demo.tissue import (
    FAT,
    GLAND,
    GLAND_LUMEN_UM,
    GLAND_WALL_UM,
    LARGE_CELL_UM,
    NECROSIS,
    SMALL_CELL_UM,
    STROMA,
    TUMOUR,
    Fields,
    Floats,
    Positions,
    SyntheticTissue,
    corner_blocks,
    lattice_hash,
    nearest_centres,
    smooth,
)
from iscale.engine.whole_file import whole_file
from iscale.geometry import Region

HEMATOXYLIN = (0.62, 0.70, 0.30)
"""Optical density per channel (red, green, blue) of the nuclear stain, after Ruifrok and Johnston (2001)."""
EOSIN = (0.09, 0.92, 0.26)
GLASS = (243.0, 242.0, 244.0)
BODY_HEMATOXYLIN = np.array([0.07, 0.24, 0.16, 0.0, 0.09, 0.06], dtype=np.float32)
"""Stain of what lies between nuclei, by region type."""
BODY_EOSIN = np.array([0.42, 0.34, 0.20, 0.02, 0.38, 0.27], dtype=np.float32)
FAT_CELL_UM = 42.0


@dataclass(frozen=True)
class _Nuclei:
    """Nuclei of one lattice over the cells that a tile touches; all (row, column) float32.

    ``u = u0 + uy y + ux x``, and ``v`` likewise, are the coordinates in which the nucleus is the unit disc (y and x in
    um from the middle of the cell); ``density`` is its optical density, 0 where a cell has none.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    uy: Floats
    ux: Floats
    u0: Floats
    vy: Floats
    vx: Floats
    v0: Floats
    density: Floats


def paint(tissue: SyntheticTissue, region: Region) -> NDArray[np.uint8]:
    """Paint a region of the slide, in pixels: (y, x, channel) uint8."""
    y_um = (np.arange(region.y0, region.y1) + 0.5) * tissue.pixel_size_um
    x_um = (np.arange(region.x0, region.x1) + 0.5) * tissue.pixel_size_um
    shade = np.float32(1) + np.float32(0.01) * smooth(y_um, x_um, 900, tissue.seed * 1000 + 501)
    if not tissue.share(y_um, x_um).any():
        return _colour(None, None, shade)
    fields = tissue.fields(y_um, x_um)
    hematoxylin, eosin = _body(tissue, fields, y_um, x_um)
    grain = smooth(y_um, x_um, 1.7, tissue.seed * 1000 + 502)
    chromatin = np.float32(1) + np.float32(0.35) * grain
    for cell_um, large in ((LARGE_CELL_UM, True), (SMALL_CELL_UM, False)):
        nuclei = _nuclei_of(tissue, y_um, x_um, cell_um, large)
        if nuclei.density.any():
            stain = _stamp(nuclei, y_um, x_um, cell_um)
            eosin *= 1 - np.float32(0.5) * np.minimum(stain, 1)
            np.maximum(hematoxylin, stain * chromatin, out=hematoxylin)
    strength = np.float32(1) + np.float32(0.12) * smooth(y_um, x_um, 450, tissue.seed * 1000 + 503)
    strength *= fields.tissue * (np.float32(1) + np.float32(0.10) * grain)
    hematoxylin *= strength * (np.float32(1) + np.float32(0.15) * fields.gradient)
    eosin *= strength * (np.float32(1) - np.float32(0.15) * fields.gradient)
    return _colour(hematoxylin, eosin, shade)


def _body(tissue: SyntheticTissue, fields: Fields, y_um: Positions, x_um: Positions) -> tuple[Floats, Floats]:
    """Stains of what lies between nuclei: fibres, cytoplasm, fat cells with their membranes, glands with a lumen."""
    regions = fields.regions
    hematoxylin = np.tensordot(BODY_HEMATOXYLIN, regions, axes=1)
    eosin = np.tensordot(BODY_EOSIN, regions, axes=1)
    seed = tissue.seed * 1000 + 510
    course = smooth(y_um, x_um, 70, seed) + np.float32(0.12) * smooth(y_um, x_um, 12, seed + 1)
    fibres = np.sin(course * np.float32(60))
    fibrous = regions[STROMA] + np.float32(0.6) * regions[GLAND]
    eosin *= 1 + fibrous * (np.float32(0.38) * fibres - np.float32(0.05))
    clefts = np.clip(-fibres * smooth(y_um, x_um, 30, seed + 2) * 3 - np.float32(0.8), 0, 1) * fibrous
    eosin *= 1 - np.float32(0.85) * clefts
    if regions[NECROSIS].any():
        eosin *= 1 + regions[NECROSIS] * np.float32(0.5) * smooth(y_um, x_um, 5, seed + 3)
    if regions[TUMOUR].any():
        eosin *= 1 + regions[TUMOUR] * np.float32(0.35) * smooth(y_um, x_um, 9, seed + 4)
    if regions[FAT].any():
        first, second = nearest_centres(y_um, x_um, FAT_CELL_UM, 0.25, seed + 5)
        eosin += regions[FAT] * np.float32(0.5) * np.exp(-(((second - first) / np.float32(3.0)) ** 2))
    if regions[GLAND].any():
        distance = tissue.gland_distance(y_um, x_um)
        lumen = np.clip((GLAND_LUMEN_UM - distance) / 3 + 0.5, 0, 1) * regions[GLAND]
        wall = np.clip((GLAND_WALL_UM - distance) / 3 + 0.5, 0, 1) * regions[GLAND]
        hematoxylin += np.float32(0.14) * wall
        hematoxylin *= 1 - np.float32(0.95) * lumen
        eosin *= 1 - np.float32(0.93) * lumen
    return hematoxylin, eosin


def _nuclei_of(tissue: SyntheticTissue, y_um: Positions, x_um: Positions, cell_um: float, large: bool) -> _Nuclei:
    """Draw the nuclei of the lattice cells around a tile, each from its cell's own hashes."""
    corner_y, corner_x = (corner_blocks(p, cell_um)[0] for p in (y_um, x_um))
    rows = np.arange(corner_y.min() - 1, corner_y.max() + 1)
    columns = np.arange(corner_x.min() - 1, corner_x.max() + 1)
    seed = tissue.seed * 1000 + (600 if large else 700)
    chance, jump_y, jump_x, turn, size, dark = (lattice_hash(rows, columns, seed + i) for i in range(6))
    fields, p_large, p_small = tissue.nuclei((rows + 0.5) * cell_um, (columns + 0.5) * cell_um)
    if large:
        thin = np.clip(fields.regions[STROMA] + fields.regions[FAT], 0, 1)
        long_um = (3.6 + 1.5 * size) * (1 - thin) + (4.6 + 2.2 * size) * thin
        wide_um = long_um * (0.62 + 0.3 * chance) * (1 - thin) + (1.3 + 0.7 * dark) * thin
        density = (0.55 + 0.35 * dark + 0.25 * thin) * (1 - np.float32(0.35) * fields.regions[NECROSIS])
        density, jump_um = np.where(chance < p_large, density, 0), 9.5
    else:
        long_um = 2.7 + 0.5 * size
        wide_um = long_um * (0.85 + 0.15 * dark)
        density, jump_um = np.where(chance < p_small, 0.95 + 0.35 * dark, 0), 7.0
    angle = np.float32(np.pi) * turn
    middle_y, middle_x = ((jump - 0.5) * jump_um for jump in (jump_y, jump_x))  # with its length, within cell_um
    uy, ux = np.sin(angle) / long_um, np.cos(angle) / long_um
    vy, vx = np.cos(angle) / wide_um, -np.sin(angle) / wide_um
    u0, v0 = -(uy * middle_y + ux * middle_x), -(vy * middle_y + vx * middle_x)
    parts = (np.asarray(p, dtype=np.float32) for p in (uy, ux, u0, vy, vx, v0, density))
    return _Nuclei(rows, columns, *parts)


def _stamp(nuclei: _Nuclei, y_um: Positions, x_um: Positions, cell_um: float) -> Floats:
    """Optical density of the nuclei at every pixel: the darkest of the four cells around the nearest corner."""
    corner_y, dy = corner_blocks(y_um, cell_um)
    corner_x, dx = corner_blocks(x_um, cell_um)
    stain = np.zeros((len(y_um), len(x_um)), dtype=np.float32)
    for step_y in (0, 1):
        for step_x in (0, 1):
            row = corner_y - nuclei.rows[0] - 1 + step_y
            column = corner_x - nuclei.columns[0] - 1 + step_x
            y = (dy - np.float32((step_y - 0.5) * cell_um))[:, None]
            x = dx - np.float32((step_x - 0.5) * cell_um)
            # what depends on the cell and the column only, (cell row, pixel column), is worked out once per cell row
            u = (nuclei.u0[:, column] + nuclei.ux[:, column] * x)[row]
            u += nuclei.uy[:, column][row] * y
            v = (nuclei.v0[:, column] + nuclei.vx[:, column] * x)[row]
            v += nuclei.vy[:, column][row] * y
            u *= u
            v *= v
            u += v
            np.subtract(1, u, out=u)
            u *= 4
            np.clip(u, 0, 1, out=u)
            u *= nuclei.density[:, column][row]
            np.maximum(stain, u, out=stain)
    return stain


def _colour(hematoxylin: Floats | None, eosin: Floats | None, shade: Floats) -> NDArray[np.uint8]:
    """Light through the stains, by Beer and Lambert."""
    picture = np.empty((*shade.shape, 3), dtype=np.uint8)
    for channel, (h, e, glass) in enumerate(zip(HEMATOXYLIN, EOSIN, GLASS, strict=True)):
        light = shade * np.float32(glass)
        if hematoxylin is not None and eosin is not None:
            light *= np.exp(hematoxylin * np.float32(-1.55 * h) - eosin * np.float32(1.25 * e))
        picture[..., channel] = np.clip(light + np.float32(0.5), 0, 255)
    return picture


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
    """Write a slide of a synthetic tissue as ``.tif``, with its pixel size in the resolution tags; what was painted."""
    tissue = SyntheticTissue(shape_px, pixel_size_um, seed, tissue_fraction)
    shapes = _level_shapes(shape_px)
    with (
        whole_file(path, ".partial") as partial,
        tempfile.TemporaryDirectory(dir=path.parent) as scratch,
        TiffWriter(partial, bigtiff=True) as writer,
    ):
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
                file.write(downsampled(_whole(tile), DOWNSAMPLE).tobytes())
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
