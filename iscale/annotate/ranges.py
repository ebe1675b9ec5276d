"""The range of every marker over the tissue, by which it is scaled to [0, 1]: extremes, or quantiles."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from iscale.annotate.context import AnnotateContext
from iscale.annotate.expression import marker_rows, read_rows
from iscale.annotate.scaling import HIGH, LOW, N_VALUES, count_values, quantile, relative_counts
from iscale.basis.source import open_source
from iscale.engine.progress import tell
from iscale.geometry import Region

MARKERS_PER_TASK = 8
TILE = 512
"""Superpixels read at a time, per side."""


def range_of_markers(context: AnnotateContext, region: Region) -> list[list[float]]:
    """What becomes 0 and what becomes 1 of some markers, by the context's rule, of values that are finite.

    Parameters
    ----------
    context
        Of the stage.
    region
        Its rows are markers, in the order of the run's genes.

    Returns
    -------
    list
        Per marker its lowest and highest expected counts, or two quantiles of its counts per 10,000; both 0 where it
        has none.
    """
    rows = list(marker_rows(open_source(context.store), context.markers))[region.y0 : region.y1]
    found = _quantiles(context, rows) if context.rule == "relative" else _extremes(context, rows)
    return [list(found.get(row, (0.0, 0.0))) for row in rows]


def _extremes(context: AnnotateContext, rows: list[int]) -> dict[int, tuple[float, float]]:
    """Lowest and highest expected counts, by row."""
    found: dict[int, tuple[float, float]] = {}
    for _, row, values in _values(context, rows):
        there = values[np.isfinite(values)]
        if there.size:
            low, high = found.get(row, (np.inf, -np.inf))
            found[row] = min(low, float(there.min())), max(high, float(there.max()))
    return found


def _quantiles(context: AnnotateContext, rows: list[int]) -> dict[int, tuple[float, float]]:
    """Two quantiles of relative expression, by row: values are counted, so that no order changes them."""
    counts = {row: np.zeros(N_VALUES, np.int64) for row in rows}
    depths, last = context.store.array("expression/depth"), None
    for tile, row, values in _values(context, rows):
        if tile != last:
            depth, last = np.asarray(depths[tile.slices]).astype(np.float32), tile
        there = np.isfinite(values) & (depth > 0)
        counts[row] += count_values(relative_counts(values[there], depth[there]))
    return {row: (quantile(n, LOW), quantile(n, HIGH)) for row, n in counts.items()}


def _values(context: AnnotateContext, rows: list[int]) -> Iterator[tuple[Region, int, NDArray[np.float32]]]:
    """Tiles that have tissue, and of each every row and its values (y, x)."""
    source, tissue = open_source(context.store), context.store.array("tissue/mask")
    tiles = list(Region(0, source.shape[0], 0, source.shape[1]).tiles(TILE))
    for done, tile in enumerate(tiles, start=1):
        if np.asarray(tissue[tile.slices]).any():
            for row, values in read_rows(source, rows, tile):
                yield tile, row, values
        tell(done, len(tiles))
