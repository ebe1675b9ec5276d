"""Whether the tissue is large enough for the clusters that are asked for: told as soon as there is a mask."""

from __future__ import annotations

import numpy as np

from iscale.errors import InputError
from iscale.geometry import Region
from iscale.store.layout import MASK_SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore
from iscale.wording import plural


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
