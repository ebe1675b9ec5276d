"""The share of every superpixel that lies in a polygon, exactly: signed areas under edges, added up along rows.

As rasterisers of fonts draw with exact coverage: an edge that goes down through a cell covers what is right of it
within the cell, and all of the row's cells beyond. Added up over a closed ring, with outlines one way round and holes
the other, what is left is the polygon. Work grows with the points and with the box of a polygon, not with their
product; intersecting polygons with squares one by one took twelve times as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_SHARE = 1e-9
"""What is left of a superpixel by rounding; smaller shares are none."""

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Coverage:
    """Shares of cells, those of one polygon together.

    Attributes
    ----------
    owner, cell
        (n,): which polygon, and which cell of the window, row by row.
    share
        (n,) float64, of 0 to 1.
    """

    owner: Places
    cell: Places
    share: Numbers


def cover(xy: Numbers, starts: Places, shape: tuple[int, int]) -> Coverage:
    """Cover a window of unit cells with polygons.

    Parameters
    ----------
    xy
        (point, 2): x, y of closed rings, outlines counterclockwise as y runs up (clockwise on the screen), holes the
        other way; a row of NaN follows every ring. The window's corner is at 0, 0; rings may reach out of it.
    starts
        (polygon + 1,): points of polygon ``p`` are ``starts[p]:starts[p + 1]``.
    shape
        Rows and columns of the window.

    Examples
    --------
    >>> square = np.array([[0.5, 0], [2, 0], [2, 1], [0.5, 1], [0.5, 0], [np.nan, np.nan]])
    >>> found = cover(square, np.array([0, 6]), (2, 3))
    >>> found.cell.tolist(), found.share.tolist()
    ([0, 1], [0.5, 1.0])
    """
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    edges = np.concatenate([xy[:-1], xy[1:]], axis=1)
    kept = np.isfinite(edges).all(axis=1)
    edges, owner = edges[kept], owner[:-1][kept]
    edges, owner = _in_rows(edges, owner, shape[0])
    edges, owner = _cut(edges, owner, shape)
    return _filled(edges, owner, len(starts) - 1, shape)


def _in_rows(edges: Numbers, owner: Places, height: int) -> tuple[Numbers, Places]:
    """Edges cut to the rows of the window; level ones cover nothing."""
    low, high = np.minimum(edges[:, 1], edges[:, 3]), np.maximum(edges[:, 1], edges[:, 3])
    kept = (high > 0) & (low < height) & (high > low)
    edges, owner = edges[kept], owner[kept]
    x0, y0, x1, y1 = edges.T
    slope = (x1 - x0) / (y1 - y0)
    ends = np.empty_like(edges)
    for at, x, y in ((0, x0, y0), (2, x1, y1)):
        inside = np.clip(y, 0, height)
        ends[:, at] = np.where(inside == y, x, x0 + (inside - y0) * slope)
        ends[:, at + 1] = inside
    return ends, owner


def _cut(edges: Numbers, owner: Places, shape: tuple[int, int]) -> tuple[Numbers, Places]:
    """Edges cut where they cross from cell to cell; what is beside the window is moved to its left or right side."""
    parts, number = [], []
    for axis, most in ((0, shape[1]), (1, shape[0])):
        a, b = edges[:, axis], edges[:, axis + 2]
        low, high = np.clip(np.minimum(a, b), 0, most), np.clip(np.maximum(a, b), 0, most)
        # Lines strictly within an edge, and the window's own sides, where the edge goes on beyond them.
        first = np.where(np.minimum(a, b) < 0, 0, np.floor(low) + 1)
        last = np.where(np.maximum(a, b) > most, most, np.ceil(high) - 1)
        count = np.maximum(last - first + 1, 0).astype(np.int64)
        count[a == b] = 0
        which = np.repeat(np.arange(len(edges)), count)
        line = first[which] + np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        parts.append((line - a[which]) / (b - a)[which])
        number.append(which)
    every = np.arange(len(edges))
    along = np.concatenate([np.zeros(len(edges)), *parts, np.ones(len(edges))])
    which = np.concatenate([every, *number, every])
    order = np.lexsort((np.clip(along, 0, 1), which))
    along, which = np.clip(along[order], 0, 1), which[order]
    x = edges[which, 0] + along * (edges[which, 2] - edges[which, 0])
    y = edges[which, 1] + along * (edges[which, 3] - edges[which, 1])
    same = which[1:] == which[:-1]
    pieces = np.stack([x[:-1], y[:-1], x[1:], y[1:]], axis=1)[same]
    return pieces, owner[which[1:][same]]


def _filled(pieces: Numbers, owner: Places, n: int, shape: tuple[int, int]) -> Coverage:
    """Add pieces of edges, each within one cell, to the cells of their polygon's box, and sum along rows."""
    x = np.clip((pieces[:, 0] + pieces[:, 2]) / 2, 0, shape[1])
    row = np.minimum(np.floor((pieces[:, 1] + pieces[:, 3]) / 2), shape[0] - 1).astype(np.int64)
    column = np.minimum(np.floor(x), shape[1]).astype(np.int64)
    down = pieces[:, 3] - pieces[:, 1]
    top, left = (np.full(n, big, np.int64) for big in (shape[0], shape[1]))
    bottom, right = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    for start, end, at in ((top, bottom, row), (left, right, column)):
        np.minimum.at(start, owner, at)
        np.maximum.at(end, owner, at)
    # One more column takes what covers everything beyond the box, so that every row adds up to 0 at its end.
    width = np.maximum(np.minimum(right, shape[1] - 1) - left + 2, 0)
    height = np.maximum(bottom - top + 1, 0)
    size = width * height
    begin = np.cumsum(size) - size
    place = begin[owner] + (row - top[owner]) * width[owner] + column - left[owner]
    beyond = column >= shape[1]
    rest = np.where(beyond, 0, x - column)
    total = int(size.sum())
    added = np.bincount(place, -down * (1 - rest), total + 1)
    added += np.bincount(place + 1, -down * rest, total + 2)[: total + 1]
    return _found(np.cumsum(added[:total]), begin, size, width, top, left, shape)


def _found(
    sums: Numbers, begin: Places, size: Places, width: Places, top: Places, left: Places, shape: tuple[int, int]
) -> Coverage:
    """Cells of all boxes that are covered."""
    at = np.flatnonzero(sums > LEAST_SHARE)
    owner = np.searchsorted(begin + size, at, side="right")
    within = at - begin[owner]
    row, column = np.divmod(within, width[owner])
    # The last column of a box is not of the window: all that is there is what rounding left.
    real = column < width[owner] - 1
    at, owner, row, column = at[real], owner[real], row[real], column[real]
    cell = (row + top[owner]) * shape[1] + column + left[owner]
    return Coverage(owner, cell, np.minimum(sums[at], 1.0))
