"""Open a slide, whatever its format, scanners' own through OpenSlide; as a program, decode one into an array."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openslide
from tifffile import TiffFile

from iscale.errors import InputError, IscaleError
from iscale.geometry import Region
from iscale.slide.base import (
    DAMAGED,
    NO_SOURCE,
    Pixels,
    SlideReader,
    bands_of,
    check_region,
    damaged,
    on_white,
    write_npy,
)
from iscale.slide.flat_reader import FlatImage
from iscale.slide.pixel_size import square
from iscale.slide.tiff_reader import TiffReader, check_complete, open_tiff, stated_pixel_size

FLAT_SUFFIXES = (".jpg", ".jpeg", ".png")
TIFF_SUFFIXES = (".tiff", ".tif", ".ome.tif", ".ome.tiff")
SCANNER_SUFFIXES = (".svs", ".ndpi", ".scn", ".mrxs")
SUFFIXES = (*TIFF_SUFFIXES, *SCANNER_SUFFIXES, *FLAT_SUFFIXES)
"""Names of slide files that are read; upper case is accepted."""

PLAIN_TIFF = "generic-tiff"
"""OpenSlide's name for tiled TIFFs of no known scanner. It opens more of them than it shows rightly: 16 bits are cut to
8, and of planar images the first channel is shown as grey."""

REMEDY = f"Give a slide as {', '.join(SUFFIXES)}."


def open_slide(path: Path | str) -> SlideReader:
    """A reader for a slide file.

    JPEG and PNG go through Pillow (`needs_decoding`); scanners' formats through OpenSlide; other TIFFs through
    OpenSlide where they are plain tiled 8-bit RGB, else through tifffile.

    Raises
    ------
    InputError
        The file is missing, empty, a folder, of a suffix or kind that is not read, cut off or damaged.
    """
    path = Path(path)
    _check_file(path)
    if path.suffix.lower() in FLAT_SUFFIXES:
        return FlatImage(path)
    vendor = _vendor(path)
    if vendor == "dicom":
        raise InputError(f"{path} is a DICOM slide, which is not supported", REMEDY)
    if vendor in (None, PLAIN_TIFF):
        return _open_tiff(path, vendor)
    if path.suffix.lower() == ".svs":
        with open_tiff(path) as tiff:
            _check_all_complete(path, tiff)
    return OpenSlideReader(path)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path} does not exist", "Check the path and its spelling.")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a slide file", REMEDY)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} has the suffix {path.suffix!r}, which is not that of a slide", REMEDY)
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check its permissions.") from error
    if empty:
        raise InputError(f"{path} is empty (0 bytes)", "Copy or export it again.")


def _vendor(path: Path) -> str | None:
    try:
        vendor: str | None = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        return None
    return vendor


def _open_tiff(path: Path, vendor: str | None) -> SlideReader:
    """A TIFF of no known scanner."""
    if path.suffix.lower() == ".mrxs":
        raise InputError(f"{path} is not a MIRAX slide, or its folder {path.stem} is missing", REMEDY)
    with open_tiff(path) as tiff:
        page = tiff.pages[0]
        plain = (
            vendor == PLAIN_TIFF
            and not tiff.is_ome
            and page.dtype == "uint8"
            and page.samplesperpixel == 3
            and page.planarconfig == 1
        )
        if plain:
            _check_all_complete(path, tiff)
            return OpenSlideReader(path, stated_pixel_size(tiff, path))
    return TiffReader(path)


def _check_all_complete(path: Path, tiff: TiffFile) -> None:
    """Refuse a TIFF of which the slide or its pyramid was cut off; labels and thumbnails do not matter."""
    for level in tiff.series[0].levels:
        check_complete(path, level.pages[0])


TILE_PX = 1024
"""OpenSlide is asked for tiles of this size on an absolute lattice: see `OpenSlideReader.read`."""


class OpenSlideReader:
    """A slide that OpenSlide reads; its size in um and the source of that, where they are not in ``mpp`` properties."""

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


def main(slide: str, out: str) -> int:
    """Decode; on bad input the error goes to standard error."""
    try:
        open_slide(Path(slide)).decode_to(Path(out))
    except IscaleError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
