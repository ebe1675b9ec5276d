"""Cluster centres: the embedding smoothed, and k-means on a sample that depends on place and seed alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from iscale.engine.progress import tell
from iscale.geometry import Region
from iscale.store.layout import MASK_SHARD_SUPERPIXELS, SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore

SIGMA = 2.0
"""Of the Gaussian, in superpixels (method, section 5)."""
TRUNCATE = 4.0
"""The Gaussian ends at this many sigma."""
HALO = round(SIGMA * TRUNCATE)
"""Superpixels around a tile that its smoothed values depend on."""
TILE = SHARD_SUPERPIXELS
"""Side of the tiles, in superpixels: absolute, so that the same numbers are added up whatever the regions."""


def read_smoothed(
    store: RunStore, tile: Region, masks: tuple[str, ...]
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float32]]]:
    """Smoothed embedding of a tile, once per mask, by the paths of (y, x) bool arrays: the superpixels to smooth over.

    Yields (y, x) which superpixels of the tile are in the mask, and (superpixel, component) of these, row by row.
    """
    stored = store.array("embedding/embedding")
    window = tile.grown(HALO, (stored.shape[1], stored.shape[2]))
    embedding: NDArray[np.float16] | None = None
    for path in masks:
        there = np.asarray(store.array(path)[window.slices])
        within = tile.within(window)
        if not there[within].any():
            yield there[within], np.empty((0, stored.shape[0]), np.float32)
            continue
        if embedding is None:
            embedding = np.asarray(stored[(slice(None), *window.slices)])
        yield there[within], smooth(embedding, there, within)


def smooth(
    values: NDArray[np.floating], there: NDArray[np.bool_], core: tuple[slice, slice] = (slice(None), slice(None))
) -> NDArray[np.float32]:
    """Gaussian mean of (component, y, x) over the superpixels that are there (y, x), of a core of the plane.

    What is not there is not looked at, and may be NaN. Returns (superpixel, component) float32 of those of the core
    that are there, row by row.

    >>> smooth(np.array([[[1, np.nan, 1]]]), np.array([[True, False, True]])).tolist()
    [[1.0], [1.0]]
    """
    kept = there[core]
    weight = _gaussian(there.astype(np.float32))[core][kept]
    result = np.empty((len(weight), len(values)), dtype=np.float32)
    for component, plane in enumerate(values):
        result[:, component] = _gaussian(np.where(there, plane, 0).astype(np.float32))[core][kept] / weight
    return result


def _gaussian(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Beyond the plane there is nothing: it counts as 0."""
    return np.asarray(gaussian_filter(plane, SIGMA, mode="constant", truncate=TRUNCATE))


SAMPLE_BYTES = 64_000_000
"""Of a sample's float32 values: half a million superpixels of 32 components."""
BATCH, BATCH_ROWS = 1024, 65_536
"""Superpixels of a batch of k-means, and those, evenly from the sample, that batches are drawn from."""
STARTS, FINISHED, PASSES = 24, 4, 20
"""K-means in batches is run from so many starts; so many of the best are finished by passes over the whole sample, at
most so many. Starts matter most, as one may end 10 % above the best; batches alone leave up to 1 % (`make
bench-clusters`)."""
ROWS_AT_ONCE = 16_384
DISTINCT_ROWS = 10_000
"""Rows that are looked at first when different ones are counted."""


def sample_size(n_components: int) -> int:
    """Most superpixels that a sample holds.

    >>> sample_size(32), sample_size(256)
    (500000, 62500)
    """
    return SAMPLE_BYTES // (4 * n_components)


def position_hash(tile: Region, width: int, seed: int) -> NDArray[np.uint64]:
    """(y, x) of a tile: a number per superpixel, uniform over 64 bits, of its place on the slide and the seed.

    The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    y, x = np.arange(tile.y0, tile.y1, dtype=np.uint64), np.arange(tile.x0, tile.x1, dtype=np.uint64)
    start = np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    mixed = y[:, None] * np.uint64(width) + x + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def draw_samples(store: RunStore, masks: tuple[str, ...], seed: int) -> list[NDArray[np.float32]]:
    """Smoothed embeddings of superpixels of each mask: all of a small slide, else about as many as a sample holds.

    The slide is streamed over, a tile at a time: (superpixel, component) float32 per mask, in the order of the tiles.
    """
    n_components, height, width = store.array("embedding/embedding").shape
    whole = Region(0, height, 0, width)
    most = sample_size(n_components)
    there = [_count(store, mask, whole) for mask in masks]
    # Four standard deviations below what fits, as the number that is drawn varies.
    share = [1.0 if n <= most else (most - 4 * most**0.5) / n for n in there]
    samples = [np.empty((min(n, most), n_components), dtype=np.float32) for n in there]
    filled = [0] * len(masks)
    for tile in whole.tiles(TILE):
        drawn = position_hash(tile, width, seed).astype(np.float64) / 2**64
        for i, (kept, values) in enumerate(read_smoothed(store, tile, masks)):
            rows = values[drawn[kept] < share[i]][: len(samples[i]) - filled[i]]
            samples[i][filled[i] : filled[i] + len(rows)] = rows
            filled[i] += len(rows)
        tell(tile.y0 * width + tile.x1 * TILE, 1.25 * height * width)
    return [sample[:n] for sample, n in zip(samples, filled, strict=True)]


def _count(store: RunStore, mask: str, whole: Region) -> int:
    """Number of superpixels of a mask."""
    array = store.array(mask)
    return sum(int(np.count_nonzero(array[tile.slices])) for tile in whole.tiles(MASK_SHARD_SUPERPIXELS))


def distinct(rows: NDArray[np.float32], most: int) -> int:
    """Number of different rows of (row, component), counted up to ``most``.

    >>> distinct(np.array([[1.0], [1.0], [2.0]], np.float32), 10)
    2
    """
    first = len(np.unique(rows[:DISTINCT_ROWS], axis=0)) if len(rows) else 0
    return min(most, first if first >= most or len(rows) <= DISTINCT_ROWS else len(np.unique(rows, axis=0)))


def fit_centres(rows: NDArray[np.float32], k: int, seed: int) -> NDArray[np.float32]:
    """Centres (k, component) of ``k`` clusters of rows, at least ``k`` of which differ; those with most rows first.

    On one thread, as the order in which several add up is not fixed. Starts and batches follow from the seed.
    """
    with threadpool_limits(limits=1):
        some = np.ascontiguousarray(rows[:: -(-len(rows) // BATCH_ROWS)])
        begun = [_in_batches(some, k, (seed + start * 1_000_003) % 2**32) for start in range(STARTS)]
        begun.sort(key=lambda centres: inertia(some, centres))
        best = min((_finished(rows, centres) for centres in begun[:FINISHED]), key=lambda c: inertia(rows, c))
    sizes = np.bincount(nearest_centre(rows, best), minlength=k)
    return best[np.lexsort((*best.T[::-1], -sizes))]


def _in_batches(rows: NDArray[np.float32], k: int, seed: int) -> NDArray[np.float32]:
    """(k, component) centres from one start."""
    from sklearn.cluster import MiniBatchKMeans

    kmeans = MiniBatchKMeans(
        k, batch_size=BATCH, max_iter=100, max_no_improvement=20, n_init=3, compute_labels=False, random_state=seed
    )
    return np.asarray(kmeans.fit(rows).cluster_centers_, dtype=np.float32)


def _finished(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """The centres after some passes over all rows."""
    from sklearn.cluster import KMeans

    kmeans = KMeans(len(centres), init=centres, n_init=1, max_iter=PASSES, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Number of distinct clusters")  # centres that coincide stay so
        return np.asarray(kmeans.fit(rows).cluster_centers_, dtype=np.float32)


def nearest_centre(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """(row,) the index of the nearest centre; centres that are NaN are none.

    Without a matrix product: how many rows come at once changes no bit.
    """
    there = np.flatnonzero(np.isfinite(centres).all(axis=1))
    found = [there[cdist(block, centres[there], "sqeuclidean").argmin(axis=1)] for block in _blocks(rows)]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def inertia(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> float:
    """Sum of squared distances to the nearest centre."""
    return float(sum(cdist(block, centres, "sqeuclidean").min(axis=1).sum() for block in _blocks(rows)))


def _blocks(rows: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
