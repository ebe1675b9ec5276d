"""JPEG and PNG, which have no random access: decoded once into a plain array, which is then read by region."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from iscale.errors import InputError, StoreError
from iscale.geometry import Region
from iscale.slide.base import (
    DAMAGED,
    Pixels,
    SlideReader,
    all_transparent,
    any_size,
    bands_of,
    check_free_memory,
    check_region,
    on_white,
    write_npy,
)
from iscale.slide.pixel_size import NO_SOURCE
from iscale.words import by

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_BIT_DEPTH_AT = 24
FLAT_SIGNATURES = (PNG_SIGNATURE, b"\xff\xd8\xff")

BYTES_PER_PIXEL = 4
"""Pillow keeps RGB in four bytes."""

PROGRESSIVE_BYTES_PER_PIXEL = 6
"""A progressive JPEG's coefficients are all held until its end: two bytes for each of up to three full channels."""

DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error)
"""What Pillow raises on broken JPEG and PNG files."""


class FlatImage:
    """A JPEG or PNG: its size is known, its pixels only after `decode_to`, which takes `decoding_bytes` of memory.

    The resolution that such files state is that of a screen or a printer: no pixel size is taken from them. What is
    neither, whatever its name says, and more than 8 bits per channel are refused.
    """

    needs_decoding = True

    def __init__(self, path: Path) -> None:
        self.path = path
        with _opened(path) as image:
            w, h = image.size
            per_pixel = BYTES_PER_PIXEL
            if image.info.get("progressive") or image.info.get("progression"):
                per_pixel += PROGRESSIVE_BYTES_PER_PIXEL
        self.levels: tuple[tuple[int, int], ...] = ((h, w),)
        self.decoding_bytes = h * w * per_pixel + (128 << 20)
        self.pixel_size_um: float | None = None
        self.pixel_size_source = NO_SOURCE
        self.notices: tuple[str, ...] = ()
        self.bounds: Region | None = None

    def read(self, level: int, region: Region) -> Pixels:
        """Not possible before `decode_to`; `DecodedImage` then reads what that wrote."""
        raise ValueError(
            f"{self.path}: no random access to {region} of level {level}, decode it first (needs_decoding)"
        )

    def decode_to(self, npy: Path) -> None:
        """Write the image as an uncompressed (y, x, 3) uint8 ``.npy``."""
        check_free_memory(self.path, self.decoding_bytes, self.levels[0])
        with _opened(self.path) as image:
            self._load(image)
            write_npy(npy, self.levels[0], (_rgb(image, band) for band in bands_of(self.levels[0])))

    def overview(self, longest_px: int) -> tuple[Pixels, tuple[float, float]]:
        """The image averaged down to at most ``longest_px``: (y, x, 3), and its pixels per pixel of that, (y, x)."""
        h, w = self.levels[0]
        with _opened(self.path) as image:
            if image.format == "JPEG":  # decoded at an eighth of the size an image takes a 64th of the memory
                image.draft("RGB", (min(w, longest_px), min(h, longest_px)))
            drafted = round(w / image.size[0])
            check_free_memory(self.path, self.decoding_bytes // drafted**2, self.levels[0])
            self._load(image)
            pixels = _rgb(image, Region(0, image.size[1], 0, image.size[0]))
        factor = max(1, -(-max(pixels.shape[:2]) // longest_px))
        rows, columns = (-(-n // factor) for n in pixels.shape[:2])
        if factor > 1:
            pixels = np.asarray(Image.fromarray(pixels).reduce(factor))[:rows, :columns]
        return pixels, (float(drafted * factor), float(drafted * factor))

    def close(self) -> None:
        """Nothing is held open."""

    def _load(self, image: Image.Image) -> None:
        try:
            image.load()
        except DECODING_ERRORS as error:
            raise InputError(f"{self.path} cannot be decoded ({error})", DAMAGED) from error
        has_alpha = image.mode in ("LA", "RGBA")
        if has_alpha and not image.getbbox(alpha_only=True) and image.getbbox(alpha_only=False):
            raise all_transparent(self.path, f"all {image.size[1]} x {image.size[0]} px")


class DecodedImage:
    """A slide of one level whose pixels lie in the ``.npy`` that its reader decoded it to, memory-mapped.

    Path, pixel size and messages are that reader's. An array that is not the slide's is a `StoreError`.
    """

    needs_decoding = False
    decoding_bytes = 0

    def __init__(self, npy: Path, source: SlideReader) -> None:
        self.path = source.path
        self.levels = source.levels[:1]
        self.pixel_size_um = source.pixel_size_um
        self.pixel_size_source = source.pixel_size_source
        self.notices = source.notices
        self.bounds = source.bounds
        try:
            self._pixels: Pixels = np.load(npy, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StoreError(f"{npy} cannot be read ({error})", "Run again with --restart.") from error
        if self._pixels.shape != (*self.levels[0], 3) or self._pixels.dtype != np.uint8:
            raise StoreError(
                f"{npy} holds {by(self._pixels.shape)} {self._pixels.dtype}, the slide is {by(self.levels[0])}",
                "Run again with --restart.",
            )

    def read(self, level: int, region: Region) -> Pixels:
        """RGB pixels (y, x, 3) uint8 of a region of level 0."""
        check_region(self.path, self.levels, level, region)
        return np.array(self._pixels[region.slices])

    def decode_to(self, npy: Path) -> None:
        """Copy the array."""
        write_npy(npy, self.levels[0], (self.read(0, band) for band in bands_of(self.levels[0])))

    def close(self) -> None:
        """Let go of the memory map."""
        self._pixels = np.empty((0, 0, 3), np.uint8)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image, header read."""
    if _png_bit_depth(path) == 16:
        raise InputError(f"{path} has 16 bits per channel", "Convert it to 8 bits per channel.")
    with any_size(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            image = Image.open(path, formats=("JPEG", "PNG"))
        except UnidentifiedImageError:
            raise InputError(
                f"{path} is neither a JPEG nor a PNG image ({_looks_like(path)})",
                "Give the slide in a format that iscale reads, under its right suffix.",
            ) from None
        except DECODING_ERRORS as error:
            raise InputError(f"{path} cannot be opened as an image ({error})", DAMAGED) from error
        with image:
            yield image


def _png_bit_depth(path: Path) -> int | None:
    """Bits per channel of a PNG (Pillow would cut 16 to 8 in silence); None for other files."""
    with path.open("rb") as file:
        head = file.read(PNG_BIT_DEPTH_AT + 1)
    return head[PNG_BIT_DEPTH_AT] if head.startswith(PNG_SIGNATURE) and len(head) > PNG_BIT_DEPTH_AT else None


def _rgb(image: Image.Image, band: Region) -> Pixels:
    """A band of a loaded image as (rows, x, 3), transparency on white."""
    part = image.crop((band.x0, band.y0, band.x1, band.y1))
    if part.has_transparency_data:
        return on_white(np.asarray(part.convert("RGBA")))
    return np.asarray(part.convert("RGB"))


def _looks_like(path: Path) -> str:
    """What the first bytes of a file are, for a message."""
    with path.open("rb") as file:
        head = file.read(64)
    printable = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return f"it is text: {head[:24].decode('ascii')!r}" if printable else f"it begins with {head[:8].hex(' ')}"
