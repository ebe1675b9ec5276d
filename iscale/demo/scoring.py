"""How well predicted superpixels agree with a measured truth that the model never saw: per gene, over spots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iscale.geometry import SUPERPIXEL_PX

MARGIN_SUPERPIXELS = 7
"""Spots nearer to the border of the image than this are not scored."""
GOOD = 0.3


@dataclass(frozen=True)
class Scores:
    """Pearson correlation per gene, (gene,), between ``n_spots`` measured and predicted spots.

    ``counts``: log1p of raw counts against log1p of the expression summed over the disc. ``depth_normalised``: log1p of
    counts per 10,000 against log1p of 10,000 x summed expression / summed depth.
    """

    counts: NDArray[np.float64]
    depth_normalised: NDArray[np.float64]
    n_spots: int


def score(
    measured: NDArray[np.floating],
    measured_depth: NDArray[np.floating],
    predicted: NDArray[np.floating],
    predicted_depth: NDArray[np.floating],
) -> Scores:
    """Score predicted against measured spots: (spot, gene) counts, and expected counts summed over each spot's disc.

    Depths are (spot,) counts of all genes together, likewise. Spots where the prediction is NaN (no tissue in the
    disc), or nothing was measured, are left out.
    """
    usable = np.isfinite(predicted_depth) & np.isfinite(predicted).all(axis=1)
    usable &= (measured_depth > 0) & (predicted_depth > 0)
    true, guess = measured[usable].astype(np.float64), predicted[usable].astype(np.float64)
    true_depth, guess_depth = (d[usable].astype(np.float64)[:, None] for d in (measured_depth, predicted_depth))
    return Scores(
        counts=pearson(np.log1p(true), np.log1p(guess)),
        depth_normalised=pearson(np.log1p(1e4 * true / true_depth), np.log1p(1e4 * guess / guess_depth)),
        n_spots=int(usable.sum()),
    )


def pearson(true: NDArray[np.float64], guess: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlation of every column.

    A column of ``guess`` that never varies scores 0: it tells nothing. One of ``true`` gives NaN: nothing can be told.
    """
    a, b = true - true.mean(axis=0), guess - guess.mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    r = np.divide((a * b).sum(axis=0), scale, out=np.zeros(len(scale)), where=scale > 0)
    return np.where(np.ptp(true, axis=0) == 0, np.nan, r)


def clear_of_border(xy_px: NDArray[np.float64], superpixel_shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Spots, (spot, 2) in pixels of the analysis image, whose superpixel is 7 superpixels or more from every border."""
    column, row = np.floor(xy_px / SUPERPIXEL_PX).astype(np.int64).T
    height, width = superpixel_shape
    m = MARGIN_SUPERPIXELS
    return np.asarray((row >= m) & (row < height - m) & (column >= m) & (column < width - m))


def disc_sums(
    values: NDArray[np.floating], xy_px: NDArray[np.float64], radius_superpixels: float
) -> NDArray[np.float64]:
    """Sum a map, (..., y, x), over the disc of each spot: superpixels (di, dj) away with di^2 + dj^2 <= r^2.

    Spots are (spot, 2) in pixels of the analysis image; the radius need not be whole. Sums, (spot, ...), are over the
    superpixels that have values, which are NaN off tissue; NaN where a disc has none.
    """
    reach = int(radius_superpixels)
    di, dj = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = di**2 + dj**2 <= radius_superpixels**2
    height, width = values.shape[-2:]
    columns, rows = np.floor(xy_px / SUPERPIXEL_PX).astype(np.int64).T
    sums = np.full((len(xy_px), *values.shape[:-2]), np.nan)
    for spot, (row, column) in enumerate(zip(rows, columns, strict=True)):
        y, x = row + di[disc], column + dj[disc]
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        block = values[..., y[inside], x[inside]].astype(np.float64)
        covered = np.isfinite(block).any(axis=-1)
        sums[spot] = np.where(covered, np.nansum(block, axis=-1), np.nan)
    return sums
