"""The gene embedding, smoothed: a Gaussian over the superpixels that count, and over no others.

Done whenever a tile is read, and never stored. A tile is read with a halo as wide as the Gaussian reaches, so what it
gets does not depend on where tiles end.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from iscale.geometry import Region
from iscale.store.layout import SHARD_SUPERPIXELS
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
    """Smoothed embedding of a tile, once per mask.

    Parameters
    ----------
    store, tile
        Where to read.
    masks
        Paths of (y, x) bool arrays: the superpixels that are smoothed over.

    Yields
    ------
    there, values
        (y, x) of the tile: which superpixels are in the mask; and (superpixel, component) of these, row by row.
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
    """Gaussian mean over the superpixels that are there.

    Parameters
    ----------
    values
        (component, y, x); what is not there is not looked at, and may be NaN.
    there
        (y, x) which superpixels count.
    core
        Part of the plane to return.

    Returns
    -------
    ndarray
        (superpixel, component) float32 of the core's superpixels that are there, row by row.

    Examples
    --------
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
