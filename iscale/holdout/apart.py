"""Spots merged within captures only, so that a capture can be held out whole.

The training spots of a run may be merged of several captures (method, section 3). Such a spot has counts of the
capture that is to be held out: it can be neither trained nor tested on, and where captures lie on each other that is
half of all spots. So for the test alone spots are merged again, each capture for itself, over the same genes, by the
same distance and scale; and it is kept of how many measured spots each is the mean, which counting noise depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.evenly import evenly_spread
from iscale.captures.merge import merge_labels
from iscale.captures.spots import MOST_SPOTS, Capture, TrainingSpots
from iscale.captures.stacked import StackedSpots, stack


@dataclass(frozen=True)
class ApartSpots(TrainingSpots):
    """Training spots of which none is of several captures.

    Attributes
    ----------
    members
        (spot,) int64: measured spots of which each is the mean.
    """

    members: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def members_of(spots: TrainingSpots) -> NDArray[np.int64]:
    """(spot,): of how many measured spots each is the mean, as far as is known: 1 if it is not."""
    return spots.members if isinstance(spots, ApartSpots) else np.ones(len(spots.depth), np.int64)


def spots_apart(
    captures: Sequence[Capture],
    spots: TrainingSpots,
    *,
    dist_st_px: float,
    analysis_shape_px: tuple[int, int],
    pixel_size_um: float,
) -> ApartSpots:
    """Merge spots again as :func:`iscale.captures.integrate.integrate` does, but never of two captures.

    Parameters
    ----------
    captures
        The captures.
    spots
        What :func:`iscale.captures.integrate.integrate` made of them: its genes and scales are used.
    dist_st_px, analysis_shape_px, pixel_size_um
        As there.
    """
    stacked = replace(stack(captures), scale=np.asarray(spots.capture_scale or (1.0,) * len(captures)))
    labels = _labels(stacked, dist_st_px)
    members = np.bincount(labels)
    depth = np.bincount(labels, stacked.depth * stacked.scale[stacked.capture]) / members
    xy_px = np.column_stack([np.bincount(labels, at) / members for at in stacked.xy_px.T])
    first = np.unique(labels, return_index=True)[1]
    radius_um, capture = stacked.radius_um[first], stacked.capture[first]
    margin = (radius_um / pixel_size_um)[:, None]
    clear = ((xy_px >= margin) & (xy_px <= np.array(analysis_shape_px[::-1]) - margin)).all(axis=1)
    inside = np.flatnonzero(clear)
    kept = inside[evenly_spread(xy_px[inside], capture[inside], MOST_SPOTS)]
    slot = np.full(len(members), -1)
    slot[kept] = np.arange(len(kept))
    return ApartSpots(
        genes=spots.genes,
        counts=_mean_counts(stacked, spots.genes, slot[labels], members[kept]),
        depth=depth[kept].astype(np.float32),
        xy_px=xy_px[kept],
        radius_um=radius_um[kept],
        capture=capture[kept],
        captures=stacked.captures,
        capture_scale=tuple(stacked.scale.tolist()),
        members=members[kept],
    )


def _labels(stacked: StackedSpots, dist_px: float) -> NDArray[np.int64]:
    """(spot,) which merged spot each goes into; those of a capture follow those of the one before."""
    labels = np.empty(len(stacked.capture), np.int64)
    used = 0
    for capture in range(len(stacked.captures)):
        rows = stacked.rows_of(capture)
        if rows.stop > rows.start:
            labels[rows] = merge_labels(stacked.xy_px[rows], dist_px) + used
            used = int(labels[rows].max()) + 1
    return labels


def _mean_counts(
    stacked: StackedSpots, genes: tuple[str, ...], slot: NDArray[np.int64], members: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(slot, gene) means of the scaled counts of the spots that go into each slot; -1 is none."""
    column = {gene: i for i, gene in enumerate(stacked.genes)}
    chosen = np.array([column[gene] for gene in genes])
    means = np.zeros((len(members), len(genes)), np.float32)
    for number, scale in enumerate(stacked.scale.tolist()):
        own = slot[stacked.rows_of(number)]
        for spots, block in stacked.blocks(number):
            rows = np.flatnonzero(own[spots] >= 0)
            into, place = np.unique(own[spots][rows], return_inverse=True)
            weight = scale / members[into][place]
            sums = sparse.csr_matrix((weight, (place, np.arange(len(rows)))), shape=(len(into), len(rows)))
            found = (sums @ block[rows].astype(np.float64)).tocsr()[:, chosen].tocoo()
            np.add.at(means, (into[found.row], found.col), found.data)
    return means
