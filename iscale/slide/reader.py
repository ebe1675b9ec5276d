"""Open a slide, whatever its format; as a program, decode one without random access into an array."""

from __future__ import annotations

import sys
from pathlib import Path

import openslide
from tifffile import TiffFile

from iscale.errors import InputError, IscaleError
from iscale.slide.base import SlideReader
from iscale.slide.flat_reader import DecodedImage, FlatImage, open_decoded
from iscale.slide.openslide_reader import OpenSlideReader
from iscale.slide.tiff_reader import TiffReader, check_complete, open_tiff, stated_pixel_size

__all__ = ["SUFFIXES", "DecodedImage", "SlideReader", "open_decoded", "open_slide"]

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
        _check_pages(path)
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


def _check_pages(path: Path) -> None:
    """Refuse a scanner's TIFF that was cut off."""
    with open_tiff(path) as tiff:
        _check_all_complete(path, tiff)


def _check_all_complete(path: Path, tiff: TiffFile) -> None:
    """Of the slide and its pyramid; labels and thumbnails do not matter."""
    for level in tiff.series[0].levels:
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
