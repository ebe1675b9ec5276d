"""What tasks of the stage ``cluster`` do: learn the centres, label superpixels, sum up genes, draw.

All of it twice: for all superpixels of the tissue (``labels``), and for those with nuclei alone (``refined``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iscale.basis.lazy import imputed_genes
from iscale.cluster.components import HALO, join_small
from iscale.cluster.figures import draw_clusters
from iscale.cluster.learn import distinct, draw_samples, fit_centres, nearest
from iscale.cluster.markers import STATISTICS, Sums, relative_expression, statistics
from iscale.cluster.smooth import TILE, read_smoothed
from iscale.engine.progress import tell
from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.store import layout
from iscale.store.run_store import RunStore

MASKS = {"labels": "tissue/mask", "refined": "tissue/cells"}
"""Name of each set of clusters, and the superpixels that are clustered."""


@dataclass(frozen=True)
class ClusterContext:
    """What a task needs to know."""

    store: RunStore
    grid: SlideGrid
    n_clusters: tuple[int, ...]
    seed: int


def learn(context: ClusterContext, region: Region) -> None:
    """Find the centres of all clusters on samples of the slide; NaN are those that too few superpixels leave over."""
    del region
    store, n_clusters = context.store, context.n_clusters
    samples = draw_samples(store, tuple(MASKS.values()), context.seed)
    fits = len(samples) * len(n_clusters)
    for i, (which, rows) in enumerate(zip(MASKS, samples, strict=True)):
        found = distinct(rows, max(n_clusters))
        if which == "labels" and found < max(n_clusters):
            raise InputError(
                f"There cannot be {max(n_clusters)} clusters: the tissue has {len(rows)} superpixels, of which {found} "
                "differ in their expression.",
                f"Ask for {max(found, 1)} or fewer with --n-clusters.",
            )
        centres = np.full((len(n_clusters), max(n_clusters), rows.shape[1]), np.nan, dtype=np.float32)
        for j, k in enumerate(n_clusters):
            if used := min(k, found):
                centres[j, :used] = fit_centres(rows, used, context.seed)
            tell(4 * fits + i * len(n_clusters) + j + 1, 5 * fits)
        store.put(f"clusters/{which}_centres", centres, ("n_clusters", "cluster", "component"))


def nearest_region(context: ClusterContext, region: Region) -> None:
    """Write which centre is nearest, for every superpixel of a region."""
    store, n = context.store, len(context.n_clusters)
    centres = {which: np.asarray(store.array(f"clusters/{which}_centres")[...]) for which in MASKS}
    for shard in region.tiles(layout.MASK_SHARD_SUPERPIXELS):
        maps = {which: np.zeros((n, *shard.shape), np.uint8) for which in MASKS}
        for tile in shard.tiles(TILE):
            found = read_smoothed(store, tile, tuple(MASKS.values()))
            for which, (there, values) in zip(MASKS, found, strict=True):
                for row in range(n if len(values) else 0):
                    labels = (nearest(values, centres[which][row]) + 1).astype(np.uint8)
                    maps[which][row, *tile.within(shard)][there] = labels
            tell((tile.y0 - region.y0) * region.shape[1] + (tile.x0 - region.x0), region.area)
        for which, labels in maps.items():
            store.write(f"clusters/{which}_nearest", shard, labels)


def _joined(context: ClusterContext, which: str, row: int, shard: Region) -> NDArray[np.uint8]:
    """Nearest centres of a shard, small components joined to their neighbours: (y, x)."""
    stored = context.store.array(f"clusters/{which}_nearest")
    window = shard.grown(HALO, (stored.shape[1], stored.shape[2]))
    return join_small(np.asarray(stored[(row, *window.slices)]))[shard.within(window)]


def count_region(context: ClusterContext, region: Region) -> dict[str, list[list[int]]]:
    """Superpixels of a region that each centre gets: per set, a list for every number of clusters."""
    most = max(context.n_clusters)
    counts = {which: np.zeros((len(context.n_clusters), most + 1), np.int64) for which in MASKS}
    for shard in region.tiles(layout.MASK_SHARD_SUPERPIXELS):
        for which, count in counts.items():
            for row in range(len(context.n_clusters)):
                count[row] += np.bincount(_joined(context, which, row, shard).ravel(), minlength=most + 1)
    return {which: count[:, 1:].tolist() for which, count in counts.items()}


def write_region(context: ClusterContext, region: Region) -> None:
    """Write a region's labels, the largest cluster of the slide being 1."""
    store = context.store
    for shard in region.tiles(layout.MASK_SHARD_SUPERPIXELS):
        for which in MASKS:
            order = np.asarray(store.array(f"clusters/{which}_order")[...])
            label_of = np.concatenate([np.zeros_like(order[:, :1]), order], axis=1)
            rows = range(len(context.n_clusters))
            maps = [label_of[row][_joined(context, which, row, shard)] for row in rows]
            store.write(f"clusters/{which}", shard, np.stack(maps))


def order_by_size(counts: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Labels by size, the largest first; of two of one size, that of the earlier centre.

    Parameters
    ----------
    counts
        (n_clusters, centre) superpixels.

    Returns
    -------
    order, sizes
        (n_clusters, centre): the label that each centre becomes; (n_clusters, cluster): superpixels of each label.

    Examples
    --------
    >>> order, sizes = order_by_size(np.array([[2, 5, 0]]))
    >>> order.tolist(), sizes.tolist()
    ([[2, 1, 3]], [[5, 2, 0]])
    """
    largest_first = np.argsort(-counts, axis=1, kind="stable")
    order = np.empty(counts.shape, np.uint8)
    np.put_along_axis(order, largest_first, np.arange(1, counts.shape[1] + 1, dtype=np.uint8)[None], axis=1)
    return order, np.take_along_axis(counts, largest_first, axis=1)


def markers_of_genes(context: ClusterContext, region: Region) -> None:
    """Write the statistics of some genes in every cluster: rows of the region are genes, and all its tiles are read."""
    store, genes = context.store, slice(region.y0, region.y1)
    shape = context.grid.superpixel_shape
    stored = {which: store.array(f"clusters/{which}") for which in MASKS}
    expression, depth = imputed_genes(store), store.array("expression/depth")
    sums = {
        (which, row): Sums.of_nothing(region.shape[0], k) for which in MASKS for row, k in enumerate(context.n_clusters)
    }
    for tile in Region(0, shape[0], 0, shape[1]).tiles(layout.SHARD_SUPERPIXELS):
        labels = {which: np.asarray(array[(slice(None), *tile.slices)]) for which, array in stored.items()}
        if labels["labels"].any():
            values = np.asarray(expression[(genes, *tile.slices)])
            relative, there = relative_expression(values, np.asarray(depth[tile.slices]))
            log = np.log1p(relative)
            for (which, row), total in sums.items():
                total.add(relative, log, labels[which][row][there])
        tell(tile.y0 * shape[1] + tile.x1 * layout.SHARD_SUPERPIXELS, shape[0] * shape[1])
    for (which, row), total in sums.items():
        k = context.n_clusters[row]
        store.write(f"clusters/markers_{k}/{which}", Region(0, len(STATISTICS), 0, k), statistics(total), genes)


def draw_region(context: ClusterContext, region: Region) -> None:
    """Draw the maps of some numbers of clusters: rows of the region are these."""
    for row in range(region.y0, region.y1):
        draw_clusters(context.store, row, context.n_clusters[row], context.grid.superpixel_um)
