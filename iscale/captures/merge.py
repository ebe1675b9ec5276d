"""Which spots lie so near to each other that they count as one.

The published method merges spots by DBSCAN with ``min_samples=1``, that is single linkage: whatever is linked by a
chain of steps of at most ``dist_st``. In a dense capture (Visium HD bins, cells) every spot is linked to every other,
and all of them would become one. So a cluster has a largest size, ``CAP`` x ``dist_st`` along its longer side. A
cluster within the cap is the published one. A larger one is cut in two at the widest gap in the middle half of its
longer side (of several, the one nearest to the middle), and each part again, until all are within the cap. The parts
of a dense capture so become an even mosaic, and sparse chains are cut between spots rather than through pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, QhullError

CAP = 2.0
"""Largest side of a cluster's bounding box, in units of ``dist_st``."""


def merge_labels(xy_px: NDArray[np.float64], dist_px: float) -> NDArray[np.int64]:
    """Label the spots that merge into one with the same number.

    Memory is proportional to the number of spots. The result does not depend on anything but the positions; labels
    count up in the order in which clusters first appear.

    Parameters
    ----------
    xy_px
        (spot, 2): x, y in pixels.
    dist_px
        Spots at most this far apart are linked, in pixels.

    Returns
    -------
    labels
        (spot,) int64, 0 .. number of clusters - 1.
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


def _single_linkage(places: NDArray[np.float64], dist_px: float) -> NDArray[np.int64]:
    """Connected components of all pairs at most ``dist_px`` apart.

    The shortest tree that connects all places is part of their Delaunay triangulation, so edges of the triangulation
    that are short enough connect what all short pairs, of which there may be billions, connect.
    """
    edges = _candidate_edges(places)
    length = np.hypot(*(places[edges[:, 0]] - places[edges[:, 1]]).T)
    a, b = edges[length <= dist_px].T
    graph = sparse.coo_matrix((np.ones(len(a), dtype=np.int8), (a, b)), shape=(len(places), len(places)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _candidate_edges(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """(edge, 2) index pairs that contain the shortest spanning tree of distinct places."""
    centred = places - places.mean(axis=0)
    try:
        if len(places) < 4:
            raise QhullError
        mesh = Delaunay(centred)
    except QhullError:  # fewer than four places, or all of them on a line: neighbours along it (and all pairs of three)
        axis = np.linalg.svd(centred, full_matrices=False)[2][0]
        order = np.argsort(centred @ axis, kind="stable")
        steps = (1, 2) if len(places) < 4 else (1,)
        return np.concatenate([np.column_stack([order[:-step], order[step:]]) for step in steps]).astype(np.int64)
    corners = np.sort(mesh.simplices, axis=1)
    sides = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [0, 2]], mesh.coplanar[:, [0, 2]]])
    return np.asarray(sides, dtype=np.int64)


def _cut_to_size(places: NDArray[np.float64], labels: NDArray[np.int64], largest_px: float) -> NDArray[np.int64]:
    order = np.argsort(labels, kind="stable")
    waiting = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    cut = np.empty(len(places), dtype=np.int64)
    count = 0
    while waiting:
        members = waiting.pop()
        parts = _halves(places[members], largest_px) if len(members) > 1 else None
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
