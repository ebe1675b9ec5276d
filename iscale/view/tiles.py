"""Tiles of 256 px: the image, and what is laid over it; values and classes in colours, as pictures."""

from __future__ import annotations

import functools
import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from iscale.arrays import halve
from iscale.geometry import Region
from iscale.view.planes import Planes, fill_squares
from iscale.view.query import Query, RefusedError
from iscale.view.slide import TILE_PX, Slide, Tile
from iscale.view.work import ByteCache

CHUNK = 512
"""Pixels per side that are read at a time: a stored chunk holds four tiles."""

CHUNKS_BYTES = 40 * 2**20

LARGEST = 1e30
"""Of values that colours are chosen by: any two, and what lies between, can be held in single precision."""

LAYERS = ("image", "gene", "uncertainty", "refined", "two", "classes")


class Tiles:
    """Makes tiles of a slide."""

    def __init__(self, slide: Slide, planes: Planes) -> None:
        self._slide, self._planes = slide, planes
        self._chunks: ByteCache[NDArray[np.uint8]] = ByteCache(CHUNKS_BYTES, lambda chunk: chunk.nbytes)

    def make(self, layer: str, place: tuple[int, int, int], query: Query) -> tuple[bytes, str]:
        """A tile of one of `LAYERS` as the bytes of a picture, and their media type.

        Parameters
        ----------
        place
            Zoom, and the tile's number from the left and from the top.
        query
            Of a gene: ``gene``, the range ``lo`` to ``hi``, ``map``, and ``least``, under which nothing is drawn; of
            two: ``gene2``, ``lo2``, ``hi2`` beside; of classes: ``key``.
        """
        if layer not in LAYERS:
            raise RefusedError(404, f"There is no layer {layer!r}; there are: {', '.join(LAYERS)}.")
        tile = self._slide.zooms.tile(*place)
        if layer == "image":
            return self._image(tile)
        if layer == "classes":
            classes = self._slide.classes_of(query.text("key"))
            numbers = self._planes.classes(classes.key, tile.cells, tile.step)
            colours = class_palette(list(classes.colours))
            return png_of_numbers(_enlarged(numbers, tile.repeat), colours), "image/png"
        if layer == "two":
            return self._two(tile, query), "image/png"
        return self._gene(layer, tile, query), "image/png"

    def _gene(self, quantity: str, tile: Tile, query: Query) -> bytes:
        name = query.text("map", "viridis")
        if name not in COLOUR_MAPS:
            raise RefusedError(404, f"There is no colour map {name!r}; there are: {', '.join(COLOUR_MAPS)}.")
        low, high = _range(query, "lo", "hi")
        least = _level(query, "least") if query.text("least") else None
        values = self._planes.values(quantity, query.text("gene"), tile.cells, tile.step)
        numbers = shades(values, low, high, least)
        return png_of_numbers(_enlarged(numbers, tile.repeat), palette(name))

    def _two(self, tile: Tile, query: Query) -> bytes:
        parts = []
        for gene, low, high in (("gene", "lo", "hi"), ("gene2", "lo2", "hi2")):
            values = self._planes.values("gene", query.text(gene), tile.cells, tile.step)
            parts.append(shares(values, *_range(query, low, high)))
        return png(_enlarged(two_colours(*parts), tile.repeat))

    def _image(self, tile: Tile) -> tuple[bytes, str]:
        """A tile of the image; beyond the slide's content it is transparent."""
        height, width = (-(-n >> tile.level) for n in self._slide.content_px)
        pixels = self._pixels(tile.level, tile.pixels)
        rows, columns = min(TILE_PX, height - tile.pixels.y0), min(TILE_PX, width - tile.pixels.x0)
        if rows >= TILE_PX and columns >= TILE_PX:
            return jpeg(pixels), "image/jpeg"
        framed = np.zeros((TILE_PX, TILE_PX, 4), np.uint8)
        if rows > 0 and columns > 0:
            framed[:rows, :columns, :3], framed[:rows, :columns, 3] = pixels[:rows, :columns], 255
        return png(framed), "image/png"

    def _pixels(self, level: int, region: Region) -> NDArray[np.uint8]:
        """(y, x, rgb) of a window of a level, white beyond the image; levels that are not stored are halved further."""
        stored = min(level, self._slide.levels - 1)
        window = region.scaled(1 << (level - stored))
        array = self._planes.array(f"image/{stored}")
        found = np.full((*window.shape, 3), 255, np.uint8)
        height, width = array.shape[-2:]
        if window.y0 < height and window.x0 < width:
            there = Region(window.y0, min(window.y1, height), window.x0, min(window.x1, width))
            fill_squares(found, window, CHUNK, lambda corner: self._chunk(array, stored, corner), there)
        for _ in range(level - stored):
            found = halve(found)
        return found

    def _chunk(self, array: Any, level: int, corner: tuple[int, int]) -> NDArray[np.uint8]:
        chunk = self._chunks.get((level, corner))
        if chunk is None:
            y, x = corner
            pixels = np.asarray(array[:, y : y + CHUNK, x : x + CHUNK])
            chunk = np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
            self._chunks.put((level, corner), chunk)
        return chunk


def _enlarged(cells: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    """Every cell as a square of ``times`` x ``times`` pixels."""
    return cells if times == 1 else cells.repeat(times, axis=0).repeat(times, axis=1)


def _level(query: Query, name: str) -> float:
    """A value that colours are chosen by."""
    value = query.number(name)
    if abs(value) > LARGEST:
        raise RefusedError(400, f"{name} is {value:g}, not from {-LARGEST:g} to {LARGEST:g}.")
    return value


def _range(query: Query, low: str, high: str) -> tuple[float, float]:
    """The ends of a range of colours, apart in single precision, which maps have."""
    begin, end = _level(query, low), _level(query, high)
    if not np.float32(end) - np.float32(begin) > 0:
        raise RefusedError(400, f"{low} {begin:g} is not under {high} {end:g}.")
    return begin, end


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
    return _packed(picture, "PNG", transparency=0, compress_level=PNG_EFFORT)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of (y, x, rgba) pixels."""
    return _packed(Image.fromarray(pixels), "PNG", compress_level=PNG_EFFORT)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG of (y, x, rgb) pixels."""
    return _packed(Image.fromarray(pixels), "JPEG", quality=JPEG_QUALITY)


def _packed(picture: Image.Image, kind: str, **options: int) -> bytes:
    packed = io.BytesIO()
    picture.save(packed, kind, **options)
    return packed.getvalue()


def hexadecimal(colours: NDArray[np.uint8]) -> list[str]:
    """Colours (n, rgb) as text."""
    return ["#" + bytes(colour).hex() for colour in colours]
