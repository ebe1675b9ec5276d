"""Which spots are held out together, and what the model may then be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.integrate import LEAST_SPOTS
from iscale.captures.merge import merge_labels, spatial_subsample
from iscale.captures.spots import MOST_SPOTS, Capture, TrainingSpots
from iscale.captures.stacked import StackedSpots, stack
from iscale.errors import InputError


@dataclass(frozen=True)
class SpotsByCapture(TrainingSpots):
    """Training spots of which none is of several captures; each is the mean of ``members`` measured ones."""

    members: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def members_of(spots: TrainingSpots) -> NDArray[np.int64]:
    """(spot,): of how many measured spots each is the mean, as far as is known: 1 if it is not."""
    return spots.members if isinstance(spots, SpotsByCapture) else np.ones(len(spots.depth), np.int64)


def merge_within_captures(
    captures: Sequence[Capture],
    spots: TrainingSpots,
    *,
    dist_st_px: float,
    analysis_shape_px: tuple[int, int],
    pixel_size_um: float,
) -> SpotsByCapture:
    """Merge spots again as `iscale.captures.integrate.integrate` does, but never of two captures.

    ``spots`` is what that made of the captures: its genes and scales are used.
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
    kept = inside[spatial_subsample(xy_px[inside], capture[inside], MOST_SPOTS)]
    slot = np.full(len(members), -1)
    slot[kept] = np.arange(len(kept))
    return SpotsByCapture(
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


How = Literal["capture", "spots", "region"]

FOLDS = 5
"""Parts that spots are cut into, by chance or by place."""


@dataclass(frozen=True)
class Folds:
    """The cut of spots into parts that are held out one after the other.

    ``fold`` (spot,) is with which part a spot is held out; -1 for spots that never are. ``trained_on`` (spot,) are
    spots that are trained on whenever they are not held out: of the others nothing is used. ``names`` (fold,) is what
    is held out.
    """

    fold: NDArray[np.int64]
    trained_on: NDArray[np.bool_]
    names: tuple[str, ...]

    def tested(self, fold: int) -> NDArray[np.int64]:
        """Indices of the spots that are held out with a part."""
        return np.flatnonzero(self.fold == fold)

    def trained(self, fold: int) -> NDArray[np.bool_]:
        """(spot,): the spots that the model learns from while this part is held out."""
        return np.asarray(self.trained_on & (self.fold != fold))


def cut_folds(spots: TrainingSpots, how: How, *, seed: int) -> Folds:
    """Cut spots into parts; refused where there is one capture or too few spots would be left to train on.

    - ``capture``: each capture is held out in turn. A spot that was merged of several captures has counts of the one
      that is held out, so it is neither trained nor tested on (`merge_within_captures` merges none of these). A
      capture without which too few spots would be left is not held out.
    - ``spots``: five parts by chance. Neighbours of a held-out spot are trained on, so this tells how well gaps
      between spots are filled.
    - ``region``: five parts of the tissue, as even in spots as can be, so that all but the spots along the cuts have
      their neighbours held out with them. This tells how well tissue is predicted that no capture covers.
    """
    n = len(spots.depth)
    everything = np.ones(n, np.bool_)
    if how == "capture":
        return _by_capture(spots)
    by_chance = np.random.default_rng([seed, 5]).permutation(n) % FOLDS
    fold = by_chance if how == "spots" else cut_evenly(spots.xy_px, FOLDS)
    if n - np.bincount(fold).max() < LEAST_SPOTS:
        raise InputError(
            f"Without a fifth of the {n} training spots fewer than {LEAST_SPOTS} are left to train on.",
            "Give more captures, or merge less (--dist-st), to test the model on held-out spots.",
        )
    return Folds(fold, everything, tuple(f"{how} {k + 1}" for k in range(FOLDS)))


def _by_capture(spots: TrainingSpots) -> Folds:
    if len(spots.captures) < 2:
        raise InputError(
            f"There is one capture, {', '.join(spots.captures)}: to hold a capture out, two are needed.",
            "Hold out a region of the tissue instead: --hold-out region.",
        )
    own = spots.capture >= 0
    size = np.bincount(spots.capture[own], minlength=len(spots.captures))
    held_out = np.flatnonzero((size > 0) & (own.sum() - size >= LEAST_SPOTS))
    if not len(held_out):
        counted = ", ".join(f"{name} {k}" for name, k in zip(spots.captures, size.tolist(), strict=True))
        raise InputError(
            f"No capture can be held out: fewer than {LEAST_SPOTS} spots would be left to train on ({counted}; "
            f"{int((~own).sum())} spots were merged of several captures).",
            "Hold out a region of the tissue instead: --hold-out region.",
        )
    fold = np.full(len(own), -1)
    for k, capture in enumerate(held_out):
        fold[spots.capture == capture] = k
    return Folds(fold, own, tuple(spots.captures[k] for k in held_out))


def cut_evenly(xy: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """(spot,) from 0 to n - 1: places (spot, 2) cut into compact parts of nearly as many each.

    Cuts are across the longer side each time, and nothing is left to chance; there are at least as many spots as parts.

    >>> cut_evenly(np.array([[0.0, 0], [1, 0], [2, 0], [3, 0], [4, 0]]), 2).tolist()
    [0, 0, 1, 1, 1]
    """
    part = np.zeros(len(xy), np.int64)
    waiting = [(np.arange(len(xy)), 0, n)]
    while waiting:
        members, first, parts = waiting.pop()
        part[members] = first
        if parts == 1 or len(members) < 2:
            continue
        places = xy[members]
        longer = int(np.argmax(np.ptp(places, axis=0)))
        order = np.lexsort((places[:, 1 - longer], places[:, longer]))
        half = parts // 2
        at = len(members) * half // parts
        waiting += [(members[order[:at]], first, half), (members[order[at:]], first + half, parts - half)]
    return part
