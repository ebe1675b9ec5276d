"""Slides in the scanners' own formats, through OpenSlide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide

from iscale.errors import InputError
from iscale.geometry import Region
from iscale.slide.base import DAMAGED, NO_SOURCE, Pixels, bands_of, check_region, damaged, on_white, write_npy
from iscale.slide.pixel_size import square

TILE_PX = 1024
"""OpenSlide is asked for tiles of this size on an absolute lattice: see `OpenSlideReader.read`."""


class OpenSlideReader:
    """A slide that OpenSlide reads.

    Parameters
    ----------
    path
        The slide's file.
    pixel_size
        Size in um and source, where they do not stand in OpenSlide's ``mpp`` properties.

    Raises
    ------
    InputError
        OpenSlide does not open the file, or its pixels are not square.
    """

    needs_decoding = False
    decoding_bytes = 16 * TILE_PX**2

    def __init__(self, path: Path, pixel_size: tuple[float | None, str] | None = None) -> None:
        self.path = path
        try:
            self._slide = openslide.OpenSlide(path)
        except (openslide.OpenSlideError, OSError) as error:
            raise InputError(f"{path} cannot be opened as a slide ({error})", DAMAGED) from error
        self.levels: tuple[tuple[int, int], ...] = tuple((h, w) for w, h in self._slide.level_dimensions)
        self.pixel_size_um, self.pixel_size_source = pixel_size or self._mpp()

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

    def _read_tile(self, level: int, tile: Region) -> Pixels:
        downsample = self._slide.level_downsamples[level]
        corner = round(tile.x0 * downsample), round(tile.y0 * downsample)
        try:
            image = self._slide.read_region(corner, level, (tile.shape[1], tile.shape[0]))
        except openslide.OpenSlideError as error:
            raise damaged(self.path, level, tile, error) from error
        return on_white(np.asarray(image))

    def _mpp(self) -> tuple[float | None, str]:
        names = openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y
        stated = [self._slide.properties.get(name) for name in names]
        if None in stated:
            return None, NO_SOURCE
        source = f"{self.path.name} ({names[0]}, {names[1]})"
        return square(float(stated[0]), float(stated[1]), source), source
