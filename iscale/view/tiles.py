"""Tiles of 256 px: the image, and what is laid over it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iscale.arrays import halve
from iscale.geometry import Region
from iscale.view import paint
from iscale.view.cache import ByteCache
from iscale.view.planes import Planes
from iscale.view.refused import Query, RefusedError
from iscale.view.slide import Slide
from iscale.view.zooms import TILE_PX, Tile

CHUNK = 512
"""Pixels per side that are read at a time: a stored chunk holds four tiles."""

CHUNKS_BYTES = 40 * 2**20

LARGEST = 1e30
"""Of values that colours are chosen by: any two, and what lies between, can be held in single precision."""

LAYERS = ("image", "gene", "uncertainty", "refined", "two", "classes")


class Tiles:
    """Makes tiles of a slide.

    Parameters
    ----------
    slide, planes
        The slide, and its maps.
    """

    def __init__(self, slide: Slide, planes: Planes) -> None:
        self._slide, self._planes = slide, planes
        self._chunks: ByteCache[NDArray[np.uint8]] = ByteCache(CHUNKS_BYTES, lambda chunk: chunk.nbytes)

    def make(self, layer: str, place: tuple[int, int, int], query: Query) -> tuple[bytes, str]:
        """A tile as the bytes of a picture, and their media type.

        Parameters
        ----------
        layer
            One of `LAYERS`.
        place
            Zoom, and the tile's number from the left and from the top.
        query
            Of a gene: ``gene``, the range ``lo`` to ``hi``, ``map``, and ``least``, under which nothing is drawn; of
            two: ``gene2``, ``lo2``, ``hi2`` beside; of classes: ``key``.

        Raises
        ------
        RefusedError
            Where there is no such tile, layer, gene or colour map.
        """
        if layer not in LAYERS:
            raise RefusedError(404, f"There is no layer {layer!r}; there are: {', '.join(LAYERS)}.")
        tile = self._slide.zooms.tile(*place)
        if layer == "image":
            return self._image(tile)
        if layer == "classes":
            classes = self._slide.classes_of(query.text("key"))
            numbers = self._planes.classes(classes.key, tile.cells, tile.step)
            colours = paint.class_palette(list(classes.colours))
            return paint.png_of_numbers(_enlarged(numbers, tile.repeat), colours), "image/png"
        if layer == "two":
            return self._two(tile, query), "image/png"
        return self._gene(layer, tile, query), "image/png"

    def _gene(self, quantity: str, tile: Tile, query: Query) -> bytes:
        name = query.text("map", "viridis")
        if name not in paint.COLOUR_MAPS:
            raise RefusedError(404, f"There is no colour map {name!r}; there are: {', '.join(paint.COLOUR_MAPS)}.")
        low, high = _range(query, "lo", "hi")
        least = _level(query, "least") if query.text("least") else None
        values = self._planes.values(quantity, query.text("gene"), tile.cells, tile.step)
        numbers = paint.shades(values, low, high, least)
        return paint.png_of_numbers(_enlarged(numbers, tile.repeat), paint.palette(name))

    def _two(self, tile: Tile, query: Query) -> bytes:
        parts = []
        for gene, low, high in (("gene", "lo", "hi"), ("gene2", "lo2", "hi2")):
            values = self._planes.values("gene", query.text(gene), tile.cells, tile.step)
            parts.append(paint.shares(values, *_range(query, low, high)))
        return paint.png(_enlarged(paint.two_colours(*parts), tile.repeat))

    def _image(self, tile: Tile) -> tuple[bytes, str]:
        """A tile of the image; beyond the slide's content it is transparent."""
        height, width = (-(-n >> tile.level) for n in self._slide.content_px)
        pixels = self._pixels(tile.level, tile.pixels)
        rows, columns = min(TILE_PX, height - tile.pixels.y0), min(TILE_PX, width - tile.pixels.x0)
        if rows >= TILE_PX and columns >= TILE_PX:
            return paint.jpeg(pixels), "image/jpeg"
        framed = np.zeros((TILE_PX, TILE_PX, 4), np.uint8)
        if rows > 0 and columns > 0:
            framed[:rows, :columns, :3], framed[:rows, :columns, 3] = pixels[:rows, :columns], 255
        return paint.png(framed), "image/png"

    def _pixels(self, level: int, region: Region) -> NDArray[np.uint8]:
        """(y, x, rgb) of a window of a level, white beyond the image; levels that are not stored are halved further."""
        stored = min(level, self._slide.levels - 1)
        window = region.scaled(1 << (level - stored))
        array = self._planes.array(f"image/{stored}")
        found = np.full((*window.shape, 3), 255, np.uint8)
        height, width = array.shape[-2:]
        if window.y0 < height and window.x0 < width:
            there = Region(window.y0, min(window.y1, height), window.x0, min(window.x1, width))
            for part in there.tiles(CHUNK):
                corner = part.y0 // CHUNK * CHUNK, part.x0 // CHUNK * CHUNK
                own = Region(corner[0], corner[0] + CHUNK, corner[1], corner[1] + CHUNK)
                found[part.within(window)] = self._chunk(array, stored, own)[part.within(own)]
        for _ in range(level - stored):
            found = halve(found)
        return found

    def _chunk(self, array: Any, level: int, region: Region) -> NDArray[np.uint8]:
        chunk = self._chunks.get((level, region))
        if chunk is None:
            chunk = np.ascontiguousarray(np.moveaxis(np.asarray(array[(slice(None), *region.slices)]), 0, -1))
            self._chunks.put((level, region), chunk)
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
