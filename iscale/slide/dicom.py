"""DICOM slides through OpenSlide, which believes the header's kind of colours; the JPEG frames say what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from iscale.errors import InputError
from iscale.slide.base import Pixels
from iscale.slide.openslide_reader import OpenSlideReader

DICOM_REMEDY = (
    "A DICOM slide is one of its .dcm files (VL Whole Slide Microscopy Image), the others of its series beside it; "
    "what OpenSlide does not read must be converted, such as to a tiled TIFF."
)

JPEG_SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
PIXEL_DATA = b"\xe0\x7f\x10\x00OB"
LONGEST_HEADER = 256 << 20
"""Frames are looked for within so many bytes: before them a header holds the positions of all of them."""

JPEG_START = b"\xff\xd8\xff"
APP0, APP14, SCAN = 0xE0, 0xEE, 0xDA
FRAMES = (0xC0, 0xC1, 0xC2)
CHUNK = 1 << 20


class YcbcrReader(OpenSlideReader):
    """A DICOM slide whose header says RGB of JPEG frames that hold YCbCr: OpenSlide gives these as they are."""

    def colours(self, rgba: Pixels) -> Pixels:
        """RGBA (y, x, 4) of Y, Cb, Cr and alpha."""
        return np.concatenate([ycbcr_to_rgb(rgba[..., :3]), rgba[..., 3:]], axis=-1)


def open_dicom(path: Path) -> OpenSlideReader:
    """A reader for a DICOM slide; OpenSlide takes the files beside it too, so a link is followed to where they are."""
    at = path.resolve()
    try:
        reader = OpenSlideReader(path, at=at)
    except InputError as error:
        reason = str(error.__cause__).rpartition(": ")[2]
        raise InputError(
            f"{path} is a DICOM file that OpenSlide does not read as a slide ({reason})", DICOM_REMEDY
        ) from error
    header, syntax = (reader.property(f"dicom.{name}") for name in ("PhotometricInterpretation", "TransferSyntaxUID"))
    held = held_by(_first_frame(at)) if syntax in JPEG_SYNTAXES else None
    if header is None or held is None or header.startswith("YBR" if held == "YCbCr" else "RGB"):
        return reader
    reader.close()
    if held == "RGB":
        raise InputError(
            f"{path}: its header says {header}, its JPEG frames say that they hold RGB; OpenSlide, which believes the "
            "header, would give wrong colours",
            "Correct the header (PhotometricInterpretation), or convert the slide to a tiled TIFF.",
        )
    reader = YcbcrReader(path, at=at)
    reader.notices += ("its header says RGB, its JPEG frames hold YCbCr: these are believed",)
    return reader


def ycbcr_to_rgb(ycbcr: Pixels) -> Pixels:
    """RGB (..., 3) of Y, Cb, Cr, in the fixed-point arithmetic of libjpeg (JFIF's full-range BT.601).

    >>> ycbcr_to_rgb(np.array([[255, 128, 128], [76, 85, 255]], np.uint8)).tolist()
    [[255, 255, 255], [254, 0, 0]]
    """
    y, cb, cr = np.moveaxis(ycbcr.astype(np.int32), -1, 0)
    cb, cr, half = cb - 128, cr - 128, 1 << 15
    red = y + ((91881 * cr + half) >> 16)
    green = y + ((-22554 * cb - 46802 * cr + half) >> 16)
    blue = y + ((116130 * cb + half) >> 16)
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)


def held_by(jpeg: bytes) -> Literal["YCbCr", "RGB"] | None:
    """What a JPEG holds by its own markers: JFIF, Adobe's transform, names of channels, chroma at lower resolution.

    None where these do not say, or it is no JPEG of three channels.
    """
    at, says_jfif, sampled = 2, False, False
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF and jpeg[at + 1] != SCAN:
        marker, size = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        data = jpeg[at + 4 : at + 2 + size]
        if marker == APP14 and data.startswith(b"Adobe") and len(data) >= 12:
            return "RGB" if data[11] == 0 else "YCbCr"
        says_jfif |= marker == APP0 and data.startswith(b"JFIF")
        if marker in FRAMES and len(data) >= 15 and data[5] == 3:
            if bytes(data[6:15:3]) == b"RGB":
                return "RGB"
            sampled = len(set(data[7:15:3])) > 1
        at += 2 + size
    return "YCbCr" if says_jfif or sampled else None


def _first_frame(path: Path) -> bytes:
    """The beginning of the first JPEG frame of a file; empty where none is found."""
    kept, marker = b"", PIXEL_DATA
    with path.open("rb") as file:
        while file.tell() < LONGEST_HEADER and (chunk := file.read(CHUNK)):
            kept += chunk
            if marker == PIXEL_DATA and (start := kept.find(marker)) >= 0:
                kept, marker = kept[start:], JPEG_START
            if marker == JPEG_START and (start := kept.find(marker)) >= 0:
                return kept[start:] + file.read(CHUNK)
            kept = kept[-len(marker) :]
    return b""
