"""Which spots are held out together, and what the model may then be trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from iscale.captures.integrate import LEAST_SPOTS
from iscale.captures.spots import TrainingSpots
from iscale.errors import InputError

How = Literal["capture", "spots", "region"]

FOLDS = 5
"""Parts that spots are cut into, by chance or by place."""


@dataclass(frozen=True)
class Folds:
    """The cut of spots into parts that are held out one after the other.

    Attributes
    ----------
    fold
        (spot,) int64: with which part a spot is held out; -1 for spots that never are.
    trained_on
        (spot,) bool: spots that are trained on whenever they are not held out. Of the others nothing is used.
    names
        (fold,) what is held out.
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
    """Cut spots into parts.

    - ``capture``: each capture is held out in turn. A spot that was merged of several captures has counts of the one
      that is held out, so it is neither trained nor tested on (:mod:`iscale.holdout.apart` merges none of these). A
      capture without which too few spots would be left is not held out.
    - ``spots``: five parts by chance. Neighbours of a held-out spot are trained on, so this tells how well gaps
      between spots are filled.
    - ``region``: five parts of the tissue, as even in spots as can be, so that all but the spots along the cuts have
      their neighbours held out with them. This tells how well tissue is predicted that no capture covers.

    Parameters
    ----------
    spots
        All spots.
    how
        What is held out.
    seed
        Fixes what chance decides.

    Raises
    ------
    InputError
        If nothing can be held out, as there is one capture or too few spots would be left to train on.
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
    """Cut places into ``n`` compact parts of nearly as many each, across the longer side each time.

    Parameters
    ----------
    xy
        (spot, 2): x, y in any unit.
    n
        Number of parts; not more than there are spots.

    Returns
    -------
    part
        (spot,) int64 from 0 to n - 1. Nothing is left to chance.

    Examples
    --------
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
