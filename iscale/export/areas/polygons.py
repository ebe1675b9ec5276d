"""Polygons on the slide: made valid, kept in a file on disk, and laid over superpixels exactly, a shard at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import sparse

from iscale.errors import InputError
from iscale.export.areas.areas import Block, Facts, Overlaps, Rings, shard_at, shard_grid
from iscale.export.areas.frame import Frame
from iscale.geometry import Region
from iscale.store.layout import SHARD_SUPERPIXELS
from iscale.store.scratch import FileRows, runs
from iscale.words import plural

LEAST_SHARE = 1e-9
"""What is left of a superpixel by rounding; smaller shares are none."""

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Coverage:
    """Shares (n,) of 0 to 1 of cells, those of one polygon together: which polygon, and which cell of the window, row
    by row.
    """

    owner: Places
    cell: Places
    share: Numbers


def cover(xy: Numbers, starts: Places, shape: tuple[int, int]) -> Coverage:
    """Cover a window of unit cells, its corner at 0, 0, with polygons.

    Points (point, 2) are x, y of closed rings, outlines counterclockwise as y runs up (clockwise on the screen), holes
    the other way; a row of NaN follows every ring, and rings may reach out of the window. Those of polygon ``p`` are
    ``starts[p]:starts[p + 1]``.

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


POINTS_AT_ONCE = 1 << 18
CELLS_AT_ONCE = 1 << 21
"""Points, and superpixels of the polygons' boxes, that are worked on together."""


class PolygonAreas:
    """Areas that are polygons, read in blocks from a ``source`` whose positions are of a frame, over (y, x)
    superpixels.

    Polygons are kept in a nameless file in ``scratch``; held in memory are only where each begins, and which shards it
    touches: some 20 bytes for each. The reader of the blocks may add to ``notices`` too.
    """

    def __init__(
        self,
        what: str,
        source: str,
        blocks: Iterator[Block],
        frame: Frame,
        shape: tuple[int, int],
        scratch: Path,
        notices: list[str] | None = None,
    ) -> None:
        self.what, self.notices = what, [] if notices is None else notices
        self._source, self._blocks, self._frame, self._shape = source, blocks, frame, shape
        self._points = FileRows.nameless(scratch, 2, np.float64)
        self._starts = np.zeros(1, np.int64)
        self._shards = self._rows = np.zeros(0, np.int32)

    def facts(self) -> Iterator[Facts]:
        """All polygons, made valid, written to the file and told of."""
        starts, shards, rows = [self._starts], list[NDArray[np.int32]](), list[NDArray[np.int32]]()
        points = done = repaired = flat = 0
        for block in self._blocks:
            found = place_on_slide(block, self._frame, self._source)
            xy, own = _spilled(found.geometries)
            self._points.write(points, xy)
            starts.append(own[1:] + points)
            which, shard = _touched(shapely.bounds(found.geometries), self._shape)
            rows.append((which + done).astype(np.int32))
            shards.append(shard.astype(np.int32))
            points, done = points + len(xy), done + len(block.ids)
            repaired, flat = repaired + found.repaired, flat + found.flat
            yield Facts(block.ids, block.columns, shapely.area(found.geometries), found.centre)
        self._starts = _joined(starts, np.int64)
        self._shards, self._rows = _joined(shards, np.int32), _joined(rows, np.int32)
        order = np.argsort(self._shards, kind="stable")
        self._shards, self._rows = self._shards[order], self._rows[order]
        if done and flat == done:
            raise InputError(
                f"{self._source}: {plural(done, 'area')}, and none encloses anything: outlines have fewer than 3 "
                "points, or lie on a line.",
                "Export the file again; in a table of corners those of an area must stand together.",
            )
        if repaired:
            self.notices.append(f"Outlines that cross themselves were repaired (make_valid): {repaired:,}.")
        if flat:
            self.notices.append(
                f"0 in the row of {plural(flat, 'area')} without any extent (an outline of fewer than 3 points, or on "
                "a line)."
            )

    def shards(self) -> list[Region]:
        """Shards that polygons touch."""
        return [shard_at(int(number), self._shape) for number in np.unique(self._shards)]

    def overlaps(self, shard: Region, most: int) -> Iterator[Overlaps]:
        """Shares of the shard's superpixels that lie in each polygon."""
        columns = shard_grid(self._shape)[1]
        number = shard.y0 // SHARD_SUPERPIXELS * columns + shard.x0 // SHARD_SUPERPIXELS
        first, last = np.searchsorted(self._shards, [number, number + 1])
        rows = self._rows[first:last].astype(np.int64)
        for part in _groups(self._starts[rows + 1] - self._starts[rows], POINTS_AT_ONCE, most):
            xy, starts = self._read(rows[part])
            xy -= (shard.x0, shard.y0)
            for some in _groups(_box_cells(xy, starts, shard.shape), CELLS_AT_ONCE, most):
                own = starts[some.start : some.stop + 1]
                found = cover(xy[own[0] : own[-1]], own - own[0], shard.shape)
                ends = np.searchsorted(found.owner, np.arange(len(own)))
                shares = sparse.csr_array((found.share, found.cell, ends), shape=(len(own) - 1, shard.area))
                yield Overlaps(rows[part][some], shares)

    def _read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Points of some polygons, and where each begins among them."""
        sizes = self._starts[rows + 1] - self._starts[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        xy = np.empty((int(starts[-1]), 2))
        for a, b in runs(rows):
            self._points.read(int(self._starts[rows[a]]), xy[starts[a] : starts[b]])
        return xy, starts


@dataclass(frozen=True)
class Placed:
    """Polygons on the slide: (area,) of shapely, valid, in superpixels, outlines one way round and holes the other.

    Centres (area, 2) are x, y of the centroid; of the first point where there is no area, NaN where there is no point.
    ``repaired`` were not valid, and ``flat`` have no area.
    """

    geometries: NDArray[np.object_]
    centre: NDArray[np.float64]
    repaired: int
    flat: int


def place_on_slide(block: Block, frame: Frame, source: str) -> Placed:
    """Polygons of a block on the slide, each valid."""
    _check(block, source)
    rings = with_extent(block.rings)
    xy = frame.to_superpixels(rings.xy)
    found = shapely.from_ragged_array(
        shapely.GeometryType.MULTIPOLYGON, *_closed(xy, rings.rings, (rings.polygons, rings.areas))
    )
    wrong = ~shapely.is_valid(found)
    if wrong.any():
        found[wrong] = shapely.make_valid(found[wrong], method="structure", keep_collapsed=False)
    found = shapely.orient_polygons(found)
    anywhere = found.copy()
    anywhere[shapely.is_empty(found)] = shapely.Point(0, 0)
    centre = shapely.get_coordinates(shapely.centroid(anywhere))
    flat = shapely.area(found) == 0
    if flat.any():
        centre[flat] = frame.to_superpixels(_first_points(block.rings)[flat])
    return Placed(found, centre, int((wrong & ~flat).sum()), int(flat.sum()))


def with_extent(rings: Rings) -> Rings:
    """The same without outlines and holes of fewer than three points; areas may be left without any polygon."""
    points = np.diff(rings.rings)
    again = (rings.xy[rings.rings[:-1]] == rings.xy[rings.rings[1:] - 1]).all(axis=1)
    kept = points - again >= 3
    if kept.all() and (np.diff(rings.polygons) > 0).all():
        return rings
    polygon = np.repeat(np.arange(len(rings.polygons) - 1), np.diff(rings.polygons))
    outline = np.zeros(len(rings.polygons) - 1, bool)
    outline[polygon] = kept[rings.polygons[polygon]]  # holes go with their outline
    kept &= outline[polygon]
    rings_before, polygons_before = _counted(kept), _counted(outline)
    return Rings(
        rings.xy[np.repeat(kept, points)],
        np.concatenate([[0], np.cumsum(points[kept])]),
        np.append(rings_before[rings.polygons[:-1][outline]], rings_before[-1]),
        polygons_before[rings.areas],
    )


def _counted(kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n + 1,): how many are kept before each, and in all."""
    return np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)


def _first_points(rings: Rings) -> NDArray[np.float64]:
    """(area, 2): the first point of each area, NaN where it has none."""
    before = rings.rings[rings.polygons[rings.areas]]
    found = np.full((len(rings), 2), np.nan)
    has = before[1:] > before[:-1]
    found[has] = rings.xy[before[:-1][has]]
    return found


def _check(block: Block, source: str) -> None:
    rings = block.rings
    if not np.isfinite(rings.xy).all():
        at = int(np.flatnonzero(~np.isfinite(rings.xy).all(axis=1))[0])
        ring = np.searchsorted(rings.rings, at, side="right") - 1
        area = np.searchsorted(rings.polygons[rings.areas[1:]], ring, side="right")
        raise InputError(
            f"{source}: the area {block.ids[area]!r} has a point at {', '.join(map(str, rings.xy[at].tolist()))}.",
            "Positions must be finite numbers: export the file again.",
        )


def _closed(
    xy: NDArray[np.float64], rings: NDArray[np.int64], rest: tuple[NDArray[np.int64], ...]
) -> tuple[NDArray[np.float64], tuple[NDArray[np.int64], ...]]:
    """Rings whose last point is their first."""
    open_ones = (xy[rings[:-1]] != xy[rings[1:] - 1]).any(axis=1)
    closed = np.insert(xy, rings[1:][open_ones], xy[rings[:-1][open_ones]], axis=0)
    return closed, (rings + np.concatenate([[0], np.cumsum(open_ones)]), *rest)


def _spilled(geometries: NDArray[np.object_]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points of polygons one after the other, a row of NaN after every ring, and where each polygon begins."""
    if len(geometries) == 0:
        return np.zeros((0, 2)), np.zeros(1, np.int64)
    _, xy, offsets = shapely.to_ragged_array(geometries, include_z=False)
    rings, *outer = (np.asarray(offset, np.int64) for offset in offsets)
    every = np.arange(len(rings))
    found = np.full((len(xy) + len(rings) - 1, 2), np.nan)
    found[np.arange(len(xy)) + np.repeat(every[:-1], np.diff(rings))] = xy
    starts = rings + every
    for offset in outer:
        starts = starts[offset]
    return found, starts


def _touched(bounds: NDArray[np.float64], shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of polygons and the shards that their boxes touch."""
    height, width = shard_grid(shape)
    box = np.where(np.isfinite(bounds), bounds, -1.0) / SHARD_SUPERPIXELS
    x0, y0 = (np.maximum(np.floor(box[:, i]), 0).astype(np.int64) for i in (0, 1))
    x1 = np.minimum(np.floor(box[:, 2]), width - 1).astype(np.int64)
    y1 = np.minimum(np.floor(box[:, 3]), height - 1).astype(np.int64)
    across, down = np.maximum(x1 - x0 + 1, 0), np.maximum(y1 - y0 + 1, 0)
    count = across * down
    which = np.repeat(np.arange(len(count)), count)
    nth = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(nth, across[which])
    return which, (row + y0[which]) * width + column + x0[which]


def _joined(parts: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    """Arrays one after the other; they are let go."""
    found = np.concatenate([np.zeros(0, dtype), *parts])
    parts.clear()
    return found


def _box_cells(xy: NDArray[np.float64], starts: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Superpixels of a window in the box of each polygon; none may be without points."""
    inside = np.clip(xy, 0, shape[::-1])
    low, high = np.fmin.reduceat(inside, starts[:-1]), np.fmax.reduceat(inside, starts[:-1])
    return np.asarray(np.prod(np.floor(high) - np.floor(low) + 1, axis=1), np.int64)


def _groups(sizes: NDArray[np.int64], limit: int, most: int) -> Iterator[slice]:
    """Parts of a list of sizes: each adds up to at most ``limit`` or is one alone, and has at most ``most``.

    >>> list(_groups(np.array([3, 3, 9, 1, 1, 1]), 6, 2))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None), slice(5, 6, None)]
    """
    sums, start = np.concatenate([[0], np.cumsum(sizes)]), 0
    while start < len(sizes):
        fits = int(np.searchsorted(sums, sums[start] + limit, side="right")) - 1
        stop = min(max(fits, start + 1), start + most, len(sizes))
        yield slice(start, stop)
        start = stop
