from __future__ import annotations

import numpy as np

from iscale.geometry import Region
from iscale.regions.centres import HALO, SIGMA, read_smoothed, smooth


def test_a_weighted_mean_of_what_is_there() -> None:
    rng = np.random.default_rng(0)
    values, there = rng.normal(size=(2, 30, 40)), rng.random((30, 40)) < 0.6
    values[:, ~there] = np.nan
    found = smooth(values, there)
    rows, columns = np.nonzero(there)
    for n in range(0, len(rows), 97):
        dy, dx = rows - rows[n], columns - columns[n]
        near = (abs(dy) <= HALO) & (abs(dx) <= HALO)
        weight = np.exp(-(dy**2 + dx**2)[near] / (2 * SIGMA**2))
        expected = (values[:, there][:, near] * weight).sum(axis=1) / weight.sum()
        np.testing.assert_allclose(found[n], expected, rtol=1e-4, atol=1e-6)


def test_a_constant_stays_one_up_to_the_border() -> None:
    there = np.zeros((20, 20), bool)
    there[:, :7] = True
    np.testing.assert_allclose(smooth(np.full((1, 20, 20), 3.0), there), 3.0, rtol=1e-6)


def test_a_tile_is_the_same_as_in_the_whole_map(predicted) -> None:
    store, grid = predicted()
    whole = Region(0, grid.superpixel_shape[0], 0, grid.superpixel_shape[1])
    for path in ("tissue/mask", "tissue/cells"):
        ((there, values),) = read_smoothed(store, whole, (path,))
        planes = np.full((*there.shape, values.shape[1]), np.nan, np.float32)
        planes[there] = values
        for tile in whole.tiles(128):
            ((part, found),) = read_smoothed(store, tile, (path,))
            np.testing.assert_array_equal(part, there[tile.slices])
            np.testing.assert_array_equal(found, planes[tile.slices][part])
