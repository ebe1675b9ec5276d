"""What can be told as soon as there is a mask: whether spots lie on tissue, and whether it is large enough."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iscale.captures.spots import TrainingSpots
from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX, Region
from iscale.store.layout import MASK_SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore
from iscale.words import plural

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


def check_enough_tissue(store: RunStore, n_clusters: tuple[int, ...]) -> None:
    """Refuse more clusters than the tissue has superpixels.

    Raises
    ------
    InputError
        With both numbers.
    """
    mask, most = store.array("tissue/mask"), max(n_clusters)
    found = 0
    for tile in Region(0, mask.shape[0], 0, mask.shape[1]).tiles(MASK_SHARD_SUPERPIXELS):
        found += int(np.count_nonzero(mask[tile.slices]))
        if found >= most:
            return
    if found < 2:
        remedy = "Is the mask right? It is drawn in `iscale report`, and MotherImage/mask-raw.png replaces it."
    else:
        remedy = f"Ask for {found} or fewer with --n-clusters; or is the tissue mask wrong (MotherImage/mask-raw.png)?"
    raise InputError(f"There cannot be {most} clusters: the tissue has {plural(found, 'superpixel')}.", remedy)
