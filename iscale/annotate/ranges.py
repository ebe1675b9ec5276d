"""Lowest and highest expression of every marker over the tissue, by which it is scaled to [0, 1]."""

from __future__ import annotations

import numpy as np

from iscale.annotate.context import AnnotateContext
from iscale.annotate.expression import EXPRESSION, marker_rows, read_rows
from iscale.engine.progress import tell
from iscale.geometry import Region

MARKERS_PER_TASK = 8
TILE = 512
"""Superpixels read at a time, per side."""


def range_of_markers(context: AnnotateContext, region: Region) -> list[list[float]]:
    """Lowest and highest value of some markers, of those that are finite.

    Parameters
    ----------
    context
        Of the stage.
    region
        Its rows are markers, in the order of the stored expression.

    Returns
    -------
    list
        Per marker its lowest and highest value; both 0 where it has none.
    """
    rows = list(marker_rows(context.store, context.markers))[region.y0 : region.y1]
    array = context.store.array(EXPRESSION)
    tissue = context.store.array("tissue/mask")
    found: dict[int, tuple[float, float]] = {}
    tiles = list(Region(0, array.shape[1], 0, array.shape[2]).tiles(TILE))
    for done, tile in enumerate(tiles, start=1):
        if np.asarray(tissue[tile.slices]).any():
            for row, values in read_rows(array, rows, tile):
                there = values[np.isfinite(values)]
                if there.size:
                    low, high = found.get(row, (np.inf, -np.inf))
                    found[row] = min(low, float(there.min())), max(high, float(there.max()))
        tell(done, len(tiles))
    return [list(found.get(row, (0.0, 0.0))) for row in rows]
