"""Values and classes as pictures: colours, transparency, and their bytes."""

from __future__ import annotations

import functools
import io

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

COLOUR_MAPS = ("viridis", "magma", "cividis", "inferno", "Blues", "Greys", "coolwarm")
"""Those that are offered; all but the last run evenly from dark to light or back, also for colour-blind readers."""

SHADES = 255
"""Colours of a map; number 0 of a palette is transparent."""

JPEG_QUALITY = 88
PNG_EFFORT = 1
"""Of zlib: a harder try makes tiles a tenth smaller, and takes twice as long."""


@functools.cache
def palette(name: str) -> NDArray[np.uint8]:
    """(shade, rgb) of a colour map, before them the transparent colour."""
    colours = matplotlib.colormaps[name](np.linspace(0, 1, SHADES))[:, :3]
    return np.vstack([np.zeros((1, 3)), 255 * colours]).round().astype(np.uint8)


def class_palette(colours: list[str]) -> NDArray[np.uint8]:
    """(class, rgb) of up to 255 classes, before them the transparent colour.

    >>> class_palette(["#ff0000"]).tolist()
    [[0, 0, 0], [255, 0, 0]]
    """
    return np.array([(0, 0, 0), *(to_rgb(colour) for colour in colours)], np.float64).dot(255).round().astype(np.uint8)


def shares(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Values as shares of a range, cut at its ends; NaN stays."""
    return np.asarray(np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1), np.float32)


def shades(values: NDArray[np.float32], low: float, high: float, least: float | None = None) -> NDArray[np.uint8]:
    """Numbers of the colours of values: 0, transparent, where there is none or it is under ``least``.

    >>> shades(np.array([0, 1, 2, np.nan], np.float32), 0, 2, 0.5).tolist()
    [0, 128, 255, 0]
    """
    shown = np.isfinite(values) if least is None else values >= np.float32(least)
    numbers = 1 + np.rint(shares(np.where(shown, values, low), low, high) * (SHADES - 1))
    return np.where(shown, numbers, 0).astype(np.uint8)


def two_colours(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(y, x, rgba) of shares of two genes: magenta, green, white where both are high; transparent where NaN."""
    there = np.isfinite(first)
    magenta, green = (np.rint(255 * np.nan_to_num(part)).astype(np.uint8) for part in (first, second))
    return np.stack([magenta, green, magenta, np.where(there, 255, 0).astype(np.uint8)], axis=-1)


def png_of_numbers(numbers: NDArray[np.uint8], colours: NDArray[np.uint8]) -> bytes:
    """A PNG of numbers of colours (y, x), of which 0 is transparent."""
    picture = Image.fromarray(numbers)
    picture.putpalette(colours.tobytes())
    packed = io.BytesIO()
    picture.save(packed, "PNG", transparency=0, compress_level=PNG_EFFORT)
    return packed.getvalue()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of (y, x, rgba) pixels."""
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "PNG", compress_level=PNG_EFFORT)
    return packed.getvalue()


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG of (y, x, rgb) pixels."""
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "JPEG", quality=JPEG_QUALITY)
    return packed.getvalue()


def hexadecimal(colours: NDArray[np.uint8]) -> list[str]:
    """Colours (n, rgb) as text."""
    return ["#" + bytes(colour).hex() for colour in colours]
