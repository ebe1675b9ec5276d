"""Overviews of stored arrays, small enough to draw, reduced tile by tile."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.arrays import block_mean
from iscale.geometry import Region
from iscale.model.genes import GeneArray
from iscale.store.run_store import RunStore

LONGEST_SIDE = 800
"""Cells on the longer side of a drawn map."""

BENEATH_PX, FRAME_PX = 1000, 3000
"""Pixels over the spots of a capture, and on the longer side of its whole frame, of the picture beneath them."""

BAND = 128
"""Rows of that picture that are taken together."""

TILE = 512
"""Superpixels read at a time, per side; a multiple of every reduction."""


def reduction(shape: tuple[int, ...], longest: int = LONGEST_SIDE) -> int:
    """Superpixels per side of a drawn cell: a power of two, with which no side is longer than ``longest`` cells.

    >>> reduction((600, 800)), reduction((6250, 6250)), reduction((600, 800), 100)
    (1, 8, 8)
    """
    factor = 1
    while ceil(max(shape[-2:]) / factor) > longest:
        factor *= 2
    return factor


def mean_map(array: GeneArray, row: int, factor: int) -> NDArray[np.float32]:
    """Mean of one row of a (row, y, x) array over blocks of ``factor`` x ``factor``, of what is not NaN."""
    return np.asarray(mean_maps(array, slice(row, row + 1), factor)[0])


def mean_maps(array: GeneArray, rows: slice, factor: int, cells: zarr.Array[Any] | None = None) -> NDArray[np.float32]:
    """Means (row, y, x) of rows of an array over blocks of ``factor`` x ``factor``, at most 512, of what is not NaN.

    Rows that share the stored chunks are read together: one by one, each would read all of them; their tiles are held
    together in memory. Where ``cells`` (y, x) has none, values on tissue count as 0.
    """
    height, width = array.shape[-2:]
    n = len(range(*rows.indices(array.shape[0])))
    result = np.full((n, ceil(height / factor), ceil(width / factor)), np.nan, dtype=np.float32)
    for tile in Region(0, height, 0, width).tiles(max(TILE, factor)):
        stored = np.asarray(array[(rows, *tile.slices)])
        kept = None if cells is None else np.asarray(cells[tile.slices])
        for values, drawn in zip(stored, result, strict=True):
            row = values.astype(np.float32)
            if kept is not None:
                row = refined(row, kept)
            drawn[tile.coarsened(factor).slices] = block_mean(row, factor)
    return result


def refined(values: NDArray[np.float32], cells: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Expression refined by where nuclei are: 0 elsewhere on tissue, NaN off tissue.

    >>> refined(np.array([1, 2, np.nan], np.float32), np.array([True, False, False])).tolist()
    [1.0, 0.0, nan]
    """
    return np.where(cells | ~np.isfinite(values), values, np.float32(0))


def image_overview(
    store: RunStore, region_um: tuple[float, float, float, float], longest: int = LONGEST_SIDE
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """Pixels (y, x, c) around a box x0, x1, y0, y1 in um, and left, right, bottom, top of what they cover.

    From the finest pyramid level at which the box has at most ``longest`` px on its longer side.
    """
    attributes = store.attributes("image")
    levels = len(attributes["ome"]["multiscales"][0]["datasets"])
    x0, x1, y0, y1 = region_um
    level, step = 0, attributes["pixel_size_um"]
    while max(x1 - x0, y1 - y0) / step > longest and level < levels - 1:
        level, step = level + 1, step * 2
    array = store.array(f"image/{level}")
    height, width = array.shape[-2:]
    j0, j1 = (int(np.clip(v / step, 0, width)) for v in (x0, x1))
    i0, i1 = (int(np.clip(v / step, 0, height)) for v in (y0, y1))
    window = Region(min(i0, height - 1), max(i1, i0 + 1), min(j0, width - 1), max(j1, j0 + 1))
    pixels = np.moveaxis(np.asarray(array[(slice(None), *window.slices)]), 0, -1)
    return pixels, (window.x0 * step, window.x1 * step, window.y1 * step, window.y0 * step)


def image_beneath(
    store: RunStore, to_mother: NDArray[np.float64], xy: NDArray[np.float64], margin_px: float
) -> tuple[NDArray[np.uint8], float]:
    """The slide as it lies beneath a capture's spots: the mother image turned into the capture's own frame.

    Parameters
    ----------
    store
        A run, its image in it.
    to_mother
        (3, 3): takes (x, y, 1) of the capture's own pixels to full-resolution pixels of the mother image.
    xy
        (spot, 2) in the capture's own pixels.
    margin_px
        What is shown beyond the last spot.

    Returns
    -------
    picture
        (y, x, 3) from the frame's corner on; white where the slide ends.
    scale
        Its pixels per pixel of the capture.
    """
    about = store.attributes("image")
    far = np.maximum(xy.max(axis=0) + margin_px, 1.0)
    spread = float(max(np.ptp(xy, axis=0).max(), margin_px, 1.0))
    scale = min(1.0, BENEATH_PX / spread, FRAME_PX / float(far.max()))
    unit = about["raw_pixel_size_um"] / about["pixel_size_um"]
    matrix = np.diag([unit, unit, 1.0]) @ to_mother @ np.diag([1 / scale, 1 / scale, 1.0])
    wanted = int(np.log2(max(1.0, np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))))
    level = min(wanted, len(about["ome"]["multiscales"][0]["datasets"]) - 1)
    array = store.array(f"image/{level}")
    width, height = (ceil(n * scale) for n in far)
    picture = np.full((height, width, 3), 255, np.uint8)
    for top in range(0, height, BAND):
        rows, columns = np.mgrid[top : min(top + BAND, height), :width] + 0.5
        at = np.stack([columns, rows], axis=-1) @ matrix[:2, :2].T + matrix[:2, 2]
        j, i = np.moveaxis(np.floor(at / 2**level).astype(np.int64), -1, 0)
        there = (i >= 0) & (i < array.shape[-2]) & (j >= 0) & (j < array.shape[-1])
        if there.any():
            i, j = i[there], j[there]
            window = Region(int(i.min()), int(i.max()) + 1, int(j.min()), int(j.max()) + 1)
            pixels = np.asarray(array[(slice(None), *window.slices)])
            picture[top : top + BAND][there] = pixels[:, i - window.y0, j - window.x0].T
    return picture, scale
