"""Do the spots lie on the tissue? The first thing that a wrong alignment or pixel size gets wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iscale.captures.spots import TrainingSpots
from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX
from iscale.store.run_store import RunStore

FEWEST = 16
"""Training needs as many spots on tissue."""

TELLING = 0.1
"""A share of spots off the tissue above this is told."""


def spots_on_tissue(store: RunStore, spots: TrainingSpots) -> NDArray[np.bool_]:
    """(spot,): whether the superpixel of a spot's centre is tissue."""
    mask = store.array("tissue/mask")
    columns, rows = np.floor(spots.xy_px / SUPERPIXEL_PX).astype(np.int64).T
    return np.asarray(mask.vindex[np.clip(rows, 0, mask.shape[0] - 1), np.clip(columns, 0, mask.shape[1] - 1)], bool)


def check_on_tissue(store: RunStore, spots: TrainingSpots) -> list[str]:
    """Say which captures lie off the tissue.

    Returns
    -------
    list of str
        A warning per capture of which more than a tenth lies off the tissue.

    Raises
    ------
    InputError
        If too few spots are left to train on.
    """
    on = spots_on_tissue(store, spots)
    remedy = (
        "Check the alignment, that locs.tsv counts in pixels of the analysis image (--pixel-size), and the tissue mask."
    )
    if on.sum() < FEWEST:
        raise InputError(
            f"Only {on.sum()} of {len(on)} spots lie on tissue; at least {FEWEST} are needed to train.", remedy
        )
    warnings = []
    for number, name in enumerate((*spots.captures, "merged of several captures")):
        own = spots.capture == (number if number < len(spots.captures) else -1)
        off = int((own & ~on).sum())
        if own.any() and off > TELLING * own.sum():
            warnings.append(f"Warning: {off} of {int(own.sum())} spots ({name}) lie off the tissue. {remedy}")
    return warnings
