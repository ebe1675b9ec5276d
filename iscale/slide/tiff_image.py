"""Which image of a TIFF is the slide, whether all of it is there, and the pixel size that is stated for that image."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from iscale.errors import InputError
from iscale.slide.base import DAMAGED
from iscale.slide.pixel_size import NO_SOURCE, UM_PER_UNIT, Stated, from_metadata, from_tags

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it logs of broken files, our errors say

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

BESIDE = re.compile(r"(?<![a-z])(label|macro|overview|thumb|map|barcode)", re.IGNORECASE)
"""Names of images that lie beside the slide in its file."""

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"

APERIO_SIZE = re.compile(rf"\|\s*MPP\s*=\s*({NUMBER})\s*(?:\||$)")


def open_tiff(path: Path) -> tifffile.TiffFile:
    """The TIFF file, its directories parsed; refused where these are cut off."""
    try:
        return _parsed(path)
    except InputError:
        if path.suffix.lower() != ".ndpi":
            raise
    return _parsed(path, is_ndpi=False)  # tifffile goes by the suffix, and positions are of another length then


def _parsed(path: Path, **kind: bool) -> tifffile.TiffFile:
    try:
        tiff = tifffile.TiffFile(path, **kind)
    except (tifffile.TiffFileError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable TIFF ({error})", DAMAGED) from error
    try:
        if not tiff.pages or not tiff.series:
            raise ValueError("no image in it")
    except Exception as error:  # corrupt directories raise whatever their bytes lead to
        tiff.close()
        raise InputError(f"{path} is not a readable TIFF ({error})", DAMAGED) from error
    return tiff


def slide_series(tiff: tifffile.TiffFile) -> Any:
    """The slide of a file: the largest of its images (the first of these) that is not named as one beside it."""
    named = [series for series in tiff.series if not BESIDE.search(series.name or "")]
    return max(named or tiff.series, key=lambda s: s.keyframe.imagelength * s.keyframe.imagewidth)


def chosen_of(tiff: tifffile.TiffFile, series: Any) -> tuple[str, ...]:
    """What to tell of the choice of the slide, where the file holds several images."""
    if len(tiff.series) == 1:
        return ()
    listed = [f"{s.keyframe.imagewidth} x {s.keyframe.imagelength}" for s in tiff.series]
    key = series.keyframe
    said = f"{', '.join(listed[:5])}{' ...' if len(listed) > 5 else ''} px"
    return (
        f"the file holds {len(listed)} images ({said}): the slide is taken to be that of "
        f"{key.imagewidth} x {key.imagelength} px",
    )


def check_complete(path: Path, page: Any) -> None:
    """Refuse a page whose pixel data reach beyond the end of the file, with the bytes it should have and has."""
    offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
    if not len(offsets) or len(offsets) != len(counts):
        raise InputError(f"{path}: an image in it has no pixel data", DAMAGED)
    size = path.stat().st_size
    end = int((offsets + counts).max())
    if end > size:
        missing = int(((offsets + counts) > size).sum())
        raise InputError(
            f"{path} is cut off: it has {size} bytes, its image data reach to byte {end} "
            f"({missing} of {len(offsets)} tiles or strips are missing)",
            DAMAGED,
        )


def stated_pixel_size(tiff: tifffile.TiffFile, series: Any, path: Path) -> Stated:
    """Pixel size in um of an image and its source: what OME metadata or a scanner state, else its resolution tags."""
    if tiff.ome_metadata and (stated := _ome_pixel_size(tiff, series, path)):
        return stated
    page = series.keyframe
    if tiff.is_svs and (found := APERIO_SIZE.search(page.description)):
        return from_metadata(float(found[1]), float(found[1]), path.name, "aperio.MPP")
    tags = page.tags
    unit = {tifffile.RESUNIT.INCH: 25400.0, tifffile.RESUNIT.CENTIMETER: 1e4}.get(tags.valueof("ResolutionUnit", 2))
    x, y = tags.valueof("XResolution"), tags.valueof("YResolution")
    if unit is None or x is None or y is None or 0 in (x[1], y[1]):
        return None, NO_SOURCE
    return from_tags(x[0] / x[1], y[0] / y[1], unit, path.name)


def _ome_pixel_size(tiff: tifffile.TiffFile, series: Any, path: Path) -> Stated | None:
    pixels = _ome_pixels(tiff, series)
    if pixels is None or pixels.get("PhysicalSizeX") is None:
        return None
    field = "OME PhysicalSizeX"
    sides = []
    for axis in "XY":
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm").strip()
        factor = UM_PER_UNIT.get(unit, UM_PER_UNIT.get(unit.lower()))
        if factor is None:  # "pixel" and "reference frame" are units without a length
            return None
        value = str(pixels.get(f"PhysicalSize{axis}") or pixels.get("PhysicalSizeX")).strip()
        if not re.fullmatch(NUMBER, value):
            return None, f"{path.name} ({field}: {value[:40]!r}, which is no number)"
        sides.append(float(value) * factor)
    return from_metadata(sides[0], sides[1], path.name, field)


def _ome_pixels(tiff: tifffile.TiffFile, series: Any) -> ElementTree.Element | None:
    """What OME metadata say of one image: of those of its size the one that names its directory, or has its place."""
    try:
        root = ElementTree.fromstring(tiff.ome_metadata or "")
    except ElementTree.ParseError:
        return None
    key = series.keyframe
    size = str(key.imagewidth), str(key.imagelength)
    every = root.findall(".//{*}Image/{*}Pixels")
    fitting = [one for one in every if (one.get("SizeX"), one.get("SizeY")) == size]
    if len(fitting) > 1:
        named = [one for one in fitting if str(key.index) in (d.get("IFD") for d in one.findall("{*}TiffData"))]
        place = list(tiff.series).index(series)
        fitting = named or (every[place : place + 1] if len(every) == len(tiff.series) else [])
    return fitting[0] if fitting else None
