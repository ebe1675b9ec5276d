"""Anti-aliased rescaling from a level of the slide to the analysis image, one region at a time.

The filter is Lanczos with three lobes (Pillow's ``LANCZOS``): when shrinking by a factor f it spans 6 f source pixels,
so what is finer than the target's Nyquist limit is removed; when enlarging it interpolates. Pillow keeps filter
positions in float32 relative to the window it is given. Work is therefore cut into tiles of 256 x 256 output pixels on
an absolute lattice, each with its own window: a pixel's value depends on the slide and the scale only, never on the
region.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from iscale.geometry import PATCH_PX, Region, SlideGrid

Pixels = npt.NDArray[np.uint8]

LOBES = 3
"""Half width of the filter, in the coarser of source and output pixels."""

WHITE = 255


def level_factor(raw_shape: tuple[int, int], level_shape: tuple[int, int]) -> float:
    """Full-resolution pixels per pixel of a pyramid level.

    Writers drop or fill the last row of a level, so sides are not exact multiples: a whole number is taken where the
    sides are what rounding, up or down, makes of it.

    >>> level_factor((3567, 4443), (1783, 2221)), level_factor((1000, 1000), (1000, 1000))
    (2.0, 1.0)
    """
    ratios = [raw / level for raw, level in zip(raw_shape, level_shape, strict=True)]
    mean = sum(ratios) / 2
    whole = round(mean)
    slack = (abs(raw - whole * n) for raw, n in zip(raw_shape, level_shape, strict=True))
    return float(whole) if whole >= 1 and all(s < whole for s in slack) else mean


def choose_level(levels: Sequence[tuple[int, int]], grid: SlideGrid) -> int:
    """The coarsest of the levels, given by their heights and widths, that is at least as fine as the analysis image.

    Level 0, the full resolution, where none is.
    """
    needed = (1 / grid.scale) * (1 + 1e-6)
    factors = [level_factor(levels[0], shape) for shape in levels]
    fine_enough = [(factor, -i) for i, factor in enumerate(factors) if factor <= needed]
    return -max(fine_enough)[1] if fine_enough else 0


def step(grid: SlideGrid, level_shape: tuple[int, int]) -> float:
    """Pixels of a level per analysis pixel; exactly 1 where the level is the analysis image already."""
    value = 1 / (grid.scale * level_factor(grid.raw_shape_px, level_shape))
    return 1.0 if math.isclose(value, 1.0, rel_tol=1e-9) else value


def source_region(grid: SlideGrid, level_shape: tuple[int, int], out: Region) -> Region | None:
    """The window of a level of (h, w) px that `resample` needs for a region of the analysis image; None in the padding.

    The region is at best made of whole 256 px patches: else the patches it touches are computed.
    """
    h, w = grid.content_shape_px
    if out.y0 >= h or out.x0 >= w:
        return None
    tiles = out.coarsened(PATCH_PX).scaled(PATCH_PX)
    scale = step(grid, level_shape)
    y0, y1 = _span(tiles.y0, min(tiles.y1, h), scale, level_shape[0])
    x0, x1 = _span(tiles.x0, min(tiles.x1, w), scale, level_shape[1])
    return Region(y0, y1, x0, x1)


def resample(
    window: Pixels, window_region: Region, out: Region, grid: SlideGrid, level_shape: tuple[int, int]
) -> Pixels:
    """Pixels (y, x, 3) of a region of the analysis image, bit for bit the same whatever region it is part of.

    They are made of the pixels (y, x, 3) of ``window_region`` of the level, at least `source_region` of ``out``. Beyond
    the slide's content all is white.
    """
    result = np.full((*out.shape, 3), WHITE, np.uint8)
    content = grid.content_shape_px
    scale = step(grid, level_shape)
    for part in out.tiles(PATCH_PX):
        if part.y0 >= content[0] or part.x0 >= content[1]:
            continue
        tile, keep = part.coarsened(PATCH_PX).scaled(PATCH_PX).clipped(content), part.clipped(content)
        pixels = _resample_tile(window, window_region, tile, scale, level_shape)
        result[keep.within(out)] = pixels[keep.within(tile)]
    return result


def _span(start: int, stop: int, scale: float, n: int) -> tuple[int, int]:
    """Source pixels ``[lo, hi)`` of a side of ``n`` that output pixels ``[start, stop)`` are made of."""
    if scale == 1.0:
        return min(start, n - 1), max(min(stop, n), min(start, n - 1) + 1)
    reach = LOBES * max(scale, 1.0) + 1
    lo = max(0, math.floor(start * scale - reach))
    hi = min(n, math.ceil(stop * scale + reach))
    return min(lo, n - 1), max(hi, min(lo, n - 1) + 1)


def _resample_tile(
    window: Pixels, window_region: Region, tile: Region, scale: float, level_shape: tuple[int, int]
) -> Pixels:
    """One lattice tile, from the same source pixels whatever window they came in."""
    y0, y1 = _span(tile.y0, tile.y1, scale, level_shape[0])
    x0, x1 = _span(tile.x0, tile.x1, scale, level_shape[1])
    source = window[Region(y0, y1, x0, x1).within(window_region)]
    top, bottom = tile.y0 * scale - y0, tile.y1 * scale - y0
    left, right = tile.x0 * scale - x0, tile.x1 * scale - x0
    # The last analysis pixel may reach beyond the level, by the rounding of sides: repeat its edge.
    below, beyond = (max(0, math.ceil(far) - n) for far, n in ((bottom, y1 - y0), (right, x1 - x0)))
    if below or beyond:
        source = np.pad(source, ((0, below), (0, beyond), (0, 0)), mode="edge")
    if scale == 1.0:
        return source[: tile.shape[0], : tile.shape[1]]
    height, width = tile.shape
    image = Image.fromarray(np.ascontiguousarray(source))
    # Pillow orders its two passes by cost, so by the tile's shape, and rounds between them: give it one at a time.
    rows = image.height
    image = image.resize((width, rows), Image.Resampling.LANCZOS, box=(left, 0, right, rows))
    image = image.resize((width, height), Image.Resampling.LANCZOS, box=(0, top, width, bottom))
    return np.asarray(image)
