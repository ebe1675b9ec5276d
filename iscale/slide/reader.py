"""Open a slide, whatever its format, scanners' own through OpenSlide; as a program, decode one into an array."""

from __future__ import annotations

import sys
from pathlib import Path

import openslide
from tifffile import TiffFile

from iscale.errors import InputError, IscaleError
from iscale.geometry import Region
from iscale.project.layout import IMAGE_SUFFIXES
from iscale.slide.base import SlideReader
from iscale.slide.dicom import DICOM_REMEDY, open_dicom
from iscale.slide.flat_reader import FLAT_SIGNATURES, FlatImage
from iscale.slide.openslide_reader import OpenSlideReader
from iscale.slide.pixel_size import Stated
from iscale.slide.tiff_image import (
    TIFF_SIGNATURES,
    check_complete,
    chosen_of,
    open_tiff,
    slide_series,
    stated_pixel_size,
)
from iscale.slide.tiff_reader import TiffReader

SUFFIXES = IMAGE_SUFFIXES
FLAT_SUFFIXES = (".jpg", ".jpeg", ".png")

PLAIN_TIFF = "generic-tiff"
"""OpenSlide's name for tiled TIFFs of no known scanner. It opens more of them than it shows rightly: 16 bits are cut to
8, and of planar images the first channel is shown as grey."""

REMEDY = f"Give a slide as {', '.join(SUFFIXES)}."


def open_slide(path: Path | str) -> SlideReader:
    """A reader for a slide file, by its content, whatever its suffix.

    JPEG and PNG go through Pillow (`needs_decoding`); scanners' formats through OpenSlide; other TIFFs through
    OpenSlide where they are plain tiled 8-bit RGB, else through tifffile, as do those that OpenSlide fails on.

    Raises
    ------
    InputError
        The file is missing, empty, a folder, of a kind that is not read, cut off or damaged.
    """
    path = Path(path)
    head = _checked_head(path)
    vendor = _vendor(path)
    if vendor == "dicom":
        return open_dicom(path)
    if path.suffix.lower() == ".mrxs" and vendor is None:
        raise InputError(f"{path} is not a MIRAX slide, or its folder {path.stem} is missing", REMEDY)
    if head.startswith(TIFF_SIGNATURES):
        return _open_plain(path) if vendor in (None, PLAIN_TIFF) else _open_scanners(path, vendor)
    if vendor is not None:
        return OpenSlideReader(path)
    if head.startswith(FLAT_SIGNATURES) or path.suffix.lower() in FLAT_SUFFIXES:
        return FlatImage(path)
    if path.suffix.lower() == ".dcm":
        raise InputError(f"{path} is no DICOM slide", DICOM_REMEDY)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} has the suffix {path.suffix!r}, and is no slide of a kind that is read", REMEDY)
    return TiffReader(path)


def _checked_head(path: Path) -> bytes:
    """The first bytes of a file, which must be one that can be read, and not empty."""
    if not path.exists():
        raise InputError(f"{path} does not exist", "Check the path and its spelling.")
    if path.is_dir():
        of_dicom = any(path.glob("*.[dD][cC][mM]"))
        raise InputError(f"{path} is a folder, not a slide file", DICOM_REMEDY if of_dicom else REMEDY)
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check its permissions.") from error
    if not head:
        raise InputError(f"{path} is empty (0 bytes)", "Copy or export it again.")
    return head


def _vendor(path: Path) -> str | None:
    try:
        vendor: str | None = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        return None
    return vendor


def _open_scanners(path: Path, vendor: str) -> SlideReader:
    """A TIFF of a known scanner."""
    if vendor == "aperio":
        try:
            tiff = open_tiff(path)
        except InputError:  # OpenSlide may know better
            return OpenSlideReader(path)
        with tiff:
            _check_all_complete(path, tiff)
    return _tried(path) or TiffReader(path)


def _open_plain(path: Path) -> SlideReader:
    """A TIFF of no known scanner; OpenSlide takes the first image of a file for the slide, and knows no channels."""
    with open_tiff(path) as tiff:
        series = slide_series(tiff)
        page = series.keyframe
        plain = (
            page.index == 0
            and not tiff.is_ome
            and page.is_tiled
            and page.dtype == "uint8"
            and page.samplesperpixel == 3
            and page.planarconfig == 1
        )
        if plain:
            _check_all_complete(path, tiff)
        size = stated_pixel_size(tiff, series, path)
        notices = chosen_of(tiff, series)
    reader = _tried(path, size) if plain else None
    if reader is None:
        return TiffReader(path)
    reader.bounds = None  # OpenSlide's are of the tiles that are not left out, to which other tools do not crop
    reader.notices += notices
    return reader


def _tried(path: Path, pixel_size: Stated | None = None) -> OpenSlideReader | None:
    """OpenSlide's reader of a TIFF, None where it cannot open the file or decode a tile in the middle: others may."""
    try:
        reader = OpenSlideReader(path, pixel_size)
    except InputError:
        return None
    h, w = reader.levels[0]
    try:
        reader.probe(Region(h // 2, h // 2 + 1, w // 2, w // 2 + 1))
    except openslide.OpenSlideError:
        reader.close()
        return None
    return reader


def _check_all_complete(path: Path, tiff: TiffFile) -> None:
    """Refuse a TIFF of which the slide or its pyramid was cut off; labels and thumbnails do not matter."""
    for level in slide_series(tiff).levels:
        check_complete(path, level.pages[0])


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
