"""Scanners' slides, and plain tiled TIFFs, through OpenSlide: by region, with their pixel size and bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide

from iscale.errors import InputError
from iscale.geometry import Region
from iscale.slide.base import DAMAGED, Pixels, bands_of, check_region, damaged, on_white, write_npy
from iscale.slide.pixel_size import NO_SOURCE, Stated, from_metadata
from iscale.slide.tiff_reader import TiffReader

TILE_PX = 1024
"""OpenSlide is asked for tiles of this size on an absolute lattice: see `OpenSlideReader.read`."""


class OpenSlideReader:
    """A slide that OpenSlide reads; its size in um and the source of that, where they are not in ``mpp`` properties.

    ``at`` is where OpenSlide is to look for the file and those beside it, where that is not ``path``.
    """

    needs_decoding = False
    decoding_bytes = 16 * TILE_PX**2

    def __init__(self, path: Path, pixel_size: Stated | None = None, at: Path | None = None) -> None:
        self.path = path
        self._at = at or path
        try:
            self._slide = openslide.OpenSlide(self._at)
        except (openslide.OpenSlideError, OSError) as error:
            raise InputError(f"{path} cannot be opened as a slide ({error})", DAMAGED) from error
        self.levels: tuple[tuple[int, int], ...] = tuple((h, w) for w, h in self._slide.level_dimensions)
        self.pixel_size_um, self.pixel_size_source = pixel_size or self._mpp()
        self.bounds = self._bounds()
        self.notices: tuple[str, ...] = ()

    def read(self, level: int, region: Region) -> Pixels:
        """RGB pixels (y, x, 3) uint8 of a region of a level; what the slide does not cover is white.

        OpenSlide takes positions in whole level-0 pixels. Where a level is not smaller by a whole number this shifts
        what is read by part of a pixel, depending on where the reading starts; starting at the corners of fixed tiles
        only, a pixel has one value whatever the region.
        """
        check_region(self.path, self.levels, level, region)
        result = np.empty((*region.shape, 3), np.uint8)
        h, w = self.levels[level]
        for part in region.tiles(TILE_PX):
            y, x = part.y0 // TILE_PX * TILE_PX, part.x0 // TILE_PX * TILE_PX
            tile = part if level == 0 else Region(y, min(y + TILE_PX, h), x, min(x + TILE_PX, w))
            result[part.within(region)] = self._read_tile(level, tile)[part.within(tile)]
        return result

    def decode_to(self, npy: Path) -> None:
        """Write level 0 as an uncompressed (y, x, 3) uint8 ``.npy``."""
        write_npy(npy, self.levels[0], (self.read(0, band) for band in bands_of(self.levels[0], TILE_PX)))

    def close(self) -> None:
        """Close the file."""
        self._slide.close()

    def property(self, name: str) -> str | None:
        """What OpenSlide tells of the file by a name."""
        found: str | None = self._slide.properties.get(name)
        return found

    def probe(self, region: Region) -> None:
        """Decode a region of level 0; OpenSlide's error where it cannot."""
        self._slide.read_region((region.x0, region.y0), 0, (region.shape[1], region.shape[0]))

    def _read_tile(self, level: int, tile: Region) -> Pixels:
        downsample = self._slide.level_downsamples[level]
        corner = round(tile.x0 * downsample), round(tile.y0 * downsample)
        try:
            image = self._slide.read_region(corner, level, (tile.shape[1], tile.shape[0]))
        except openslide.OpenSlideError as error:
            self._slide.close()  # OpenSlide reads nothing more after an error
            self._slide = openslide.OpenSlide(self._at)
            return self._by_tifffile(level, tile, error)
        return on_white(self.colours(np.asarray(image)))

    def colours(self, rgba: Pixels) -> Pixels:
        """RGBA (y, x, 4) of what OpenSlide gives: the same, but for formats whose colours it takes for others."""
        return rgba

    def _by_tifffile(self, level: int, tile: Region, error: Exception) -> Pixels:
        """A tile that OpenSlide cannot decode: damage only where tifffile cannot either."""
        try:
            other = TiffReader(self.path)
        except InputError:
            raise damaged(self.path, level, tile, error) from error
        try:
            if other.levels != self.levels:
                raise damaged(self.path, level, tile, error)
            return other.read(level, tile)
        finally:
            other.close()

    def _bounds(self) -> Region | None:
        """The part of level 0 that the file states to be scanned, where that is not all of it."""
        found = self._slide.properties
        names = ("BOUNDS_Y", "BOUNDS_HEIGHT", "BOUNDS_X", "BOUNDS_WIDTH")
        try:
            y, h, x, w = (int(found[getattr(openslide, f"PROPERTY_NAME_{name}")]) for name in names)
        except (KeyError, ValueError):
            return None
        height, width = self.levels[0]
        if min(y, x) < 0 or min(h, w) <= 0:
            return None
        inside = Region(0, height, 0, width).common(Region(y, y + h, x, x + w))
        return inside if inside and inside.shape != (height, width) else None

    def _mpp(self) -> Stated:
        names = openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y
        x, y = (self._slide.properties.get(name) for name in names)
        if x is None or y is None:
            return None, NO_SOURCE
        return from_metadata(float(x), float(y), self.path.name, ", ".join(names))
