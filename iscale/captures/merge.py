"""Which spots lie so near to each other that they count as one, and a part of many that is spread as all are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

CAP = 2.0
"""Largest side of a cluster's bounding box, in units of ``dist_st``."""

SIDE = np.sqrt(0.5) * (1 - 1e-9)
"""Side of a cell, over the distance: its diagonal is just under it, so that rounding links none too far apart."""

NEIGHBOURS = ((1, 0), (0, 1), (1, 1), (-1, 1), (2, 0), (0, 2), (2, 1), (-2, 1), (1, 2), (-1, 2), (2, 2), (-2, 2))
"""Columns and rows to the cells that may hold places within the distance; the other way round is the same pair."""

MOST_COMPARED = 4096
"""Pairs of places of two cells that are all compared; of more a tree finds the nearest."""

COMPARED_AT_ONCE = 1 << 19

FINEST = 2.0**-31
"""A distance that is less than this share of the extent is none."""


def merge_labels(xy_px: NDArray[np.float64], dist_px: float) -> NDArray[np.int64]:
    """(spot,) int64 labels: spots that merge into one have the same number; spots at most ``dist_px`` apart are linked.

    Memory is proportional to the number of spots. The result does not depend on anything but the positions (spot, 2);
    labels count up from 0 in the order in which clusters first appear.
    """
    if len(xy_px) == 0:
        return np.zeros(0, dtype=np.int64)
    places, place_of = np.unique(xy_px, axis=0, return_inverse=True)
    chained = _single_linkage(places, dist_px)
    labels = _cut_to_size(places, chained, CAP * dist_px)[place_of.reshape(-1)]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def least_merged(xy_px: NDArray[np.float64], dist_px: float) -> int:
    """How many clusters there are at least, told at once: none touches more than four cells of a grid of the cap.

    >>> places = np.stack(np.meshgrid(np.arange(100.0), np.arange(100.0)), axis=-1).reshape(-1, 2)
    >>> least_merged(places, 5.0), int(merge_labels(places, 5.0).max()) + 1
    (25, 256)
    """
    side = CAP * dist_px
    if side <= 0:
        return len(np.unique(xy_px, axis=0))
    return -(-len(np.unique(np.floor(xy_px / side), axis=0)) // 4)


def _single_linkage(places: NDArray[np.float64], dist_px: float) -> NDArray[np.int64]:
    """Connected components of all pairs of distinct places at most ``dist_px`` apart.

    Of these pairs there may be billions. Places in one cell of a grid whose diagonal is the distance are all linked, so
    cells are what is to be connected: those next to each other, and not connected by way of others yet, are compared
    place by place.
    """
    if dist_px <= FINEST * np.ptp(places, axis=0).max():
        return np.arange(len(places))
    cells = _Cells(places, dist_px)
    label = np.arange(len(cells.starts) - 1)
    for step in NEIGHBOURS:
        a, b = cells.pairs(step)
        apart = label[a] != label[b]
        a, b = a[apart], b[apart]
        near = cells.near(a, b)
        one, other = np.append(a[near], _first(label)), np.append(b[near], np.arange(len(label)))
        graph = sparse.coo_matrix((np.ones(len(one), bool), (one, other)), shape=(len(label), len(label)))
        label = np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
    return label[cells.of]


def _first(label: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each cell the first one of the same label."""
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    return first[inverse]


class _Cells:
    """Places in the cells of a square grid; all places of a cell are within the distance of each other."""

    def __init__(self, places: NDArray[np.float64], dist_px: float) -> None:
        side = dist_px * SIDE
        at = np.floor((places - places.min(axis=0)) / side).astype(np.int64)
        self._width = int(at[:, 0].max()) + 5  # beyond the last column two are empty, so that none follows another
        self._keys, self.of = np.unique((at[:, 1] + 2) * self._width + at[:, 0] + 2, return_inverse=True)
        order = np.argsort(self.of, kind="stable")
        self._places, self._dist = places[order], dist_px
        self.starts = np.append(0, np.cumsum(np.bincount(self.of)))

    def pairs(self, step: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cells that have a neighbour so many columns and rows on, and those neighbours."""
        wanted = self._keys + step[1] * self._width + step[0]
        found = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        have = np.flatnonzero(self._keys[found] == wanted)
        return have, found[have]

    def near(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(pair,): whether a place of the one cell is within the distance of one of the other."""
        near = np.zeros(len(a), bool)
        sizes = np.diff(self.starts)
        many = sizes[a] * sizes[b] > MOST_COMPARED
        for pair in np.flatnonzero(many).tolist():
            one, other = (self._places[self.starts[c] : self.starts[c + 1]] for c in (a[pair], b[pair]))
            near[pair] = self._any_near(one, other)
        few = np.flatnonzero(~many)
        ends = np.cumsum(sizes[a[few]] * sizes[b[few]])
        for at in np.split(few, np.searchsorted(ends, np.arange(COMPARED_AT_ONCE, ends[-1:].sum(), COMPARED_AT_ONCE))):
            near[at] = self._compared(a[at], b[at])
        return near

    def _compared(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        """As ``near``, by all pairs of places."""
        n_a, n_b = np.diff(self.starts)[a], np.diff(self.starts)[b]
        pair = np.repeat(np.arange(len(a)), n_a * n_b)
        within = np.arange(len(pair)) - np.repeat(np.cumsum(n_a * n_b) - n_a * n_b, n_a * n_b)
        one = self._places[self.starts[a[pair]] + within // n_b[pair]]
        other = self._places[self.starts[b[pair]] + within % n_b[pair]]
        near = np.zeros(len(a), bool)
        near[pair[np.hypot(*(one - other).T) <= self._dist]] = True
        return near

    def _any_near(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
        """The same for two crowded cells, where the nearest neighbour of every place is found by a tree."""
        _, nearest = cKDTree(other).query(one)
        return bool((np.hypot(*(one - other[nearest]).T) <= self._dist).any())


def _cut_to_size(places: NDArray[np.float64], labels: NDArray[np.int64], largest_px: float) -> NDArray[np.int64]:
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    ordered = places[order]
    extents = np.maximum.reduceat(ordered, starts) - np.minimum.reduceat(ordered, starts)
    stops = np.append(starts, len(places))[1:]
    large = np.flatnonzero(extents.max(axis=1) > largest_px).tolist()
    waiting = [order[starts[k] : stops[k]] for k in large]  # most clusters of millions are single spots
    cut, count = labels.copy(), int(labels.max()) + 1
    while waiting:
        members = waiting.pop()
        parts = _halves(places[members], largest_px)
        if parts is None:
            cut[members] = count
            count += 1
        else:
            waiting += [members[part] for part in parts]
    return cut


def _halves(xy: NDArray[np.float64], largest_px: float) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    low, high = xy.min(axis=0), xy.max(axis=0)
    axis = int(np.argmax(high - low))
    extent = high[axis] - low[axis]
    if extent <= largest_px:
        return None
    order = np.argsort(xy[:, axis], kind="stable")
    along = xy[order, axis]
    gap, cut_at = np.diff(along), (along[:-1] + along[1:]) / 2
    off_centre = np.abs(cut_at - (low[axis] + high[axis]) / 2)
    gap[off_centre > extent / 4] = 0
    if not gap.any():  # one empty stretch covers the middle half
        gap = np.diff(along)
    at = int(np.lexsort((off_centre, -np.round(gap, 6)))[0]) + 1
    return order[:at], order[at:]


PER_CELL = 8
"""Spots that are chosen in a cell of the grid, about."""


def spatial_subsample(
    xy: NDArray[np.float64], capture: NDArray[np.int64], most: int, seed: int = 0
) -> NDArray[np.int64]:
    """(at most ``most``,) ascending indices of spots (spot, 2), of every place and (spot,) capture the same share.

    Spots are put into the order of captures, of cells of a grid along a snake within each, and of chance within a cell;
    then every n-th is taken. The choice depends on nothing but the spots and the seed.
    """
    if len(xy) <= most:
        return np.arange(len(xy))
    low, extent = xy.min(axis=0), np.ptp(xy, axis=0)
    side = np.sqrt(max(extent.prod(), 1e-300) * PER_CELL / most) or 1.0
    column, row = np.minimum((xy - low) / side, 2**31).astype(np.int64).T
    along = np.where(row % 2, -column, column)
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(xy)), along, row, capture))
    picked = np.floor((np.arange(most) + rng.random()) * (len(xy) / most)).astype(np.int64)
    return np.sort(order[picked])
