"""Simple predictors of spots, to judge the model by: ridge regression on features, and nearest neighbours in space.

Both predict what they are scored on (the logarithm of counts, or of normalised counts) directly, and choose their one
parameter by cross-validation over the training spots.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from iscale.captures.spots import DiscFeatures
from iscale.model.discs import blocks_of, rows_of, spot_starts

FOLDS = 5
PENALTIES = 10.0 ** np.arange(0, 6.1, 0.5)
NEIGHBOURS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)


def disc_mean_features(discs: DiscFeatures, n_spots: int) -> NDArray[np.float64]:
    """Mean feature of each spot's disc, (spot, feature); NaN for a spot without any superpixel."""
    starts = spot_starts(discs.spot, n_spots)
    means = np.full((n_spots, discs.features.shape[1]), np.nan)
    for spots in blocks_of(starts, np.flatnonzero(np.diff(starts) > 0)):
        rows, owner = rows_of(starts, spots)
        first = np.searchsorted(owner, np.arange(len(spots)))
        sums = np.add.reduceat(np.asarray(discs.features[rows]), first, axis=0, dtype=np.float64)
        means[spots] = sums / np.bincount(owner)[:, None]
    return means


def predict_ridge(
    features: NDArray[np.float64], targets: NDArray[np.float64], at: NDArray[np.float64], *, seed: int = 0
) -> NDArray[np.float64]:
    """Ridge regression on standardised features, one penalty for all targets.

    Parameters
    ----------
    features, targets
        (spot, feature) and (spot, target) of the training spots, all finite.
    at
        (other, feature) where to predict.
    seed
        Fixes the folds.

    Returns
    -------
    ndarray
        (other, target).
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1)
    z, z_at = (features - mean) / deviation, (at - mean) / deviation
    scale = _variance(targets)
    errors = np.zeros(len(PENALTIES))
    for fitted, left_out in _folds(len(z), seed):
        for k, guess in enumerate(_ridge_path(z[fitted], targets[fitted], z[left_out], PENALTIES)):
            errors[k] += ((guess - targets[left_out]) ** 2 / scale).sum()
    best = PENALTIES[errors.argmin()]
    return _ridge_path(z, targets, z_at, np.array([best]))[0]


def predict_nearest(
    xy: NDArray[np.float64], targets: NDArray[np.float64], at: NDArray[np.float64], *, seed: int = 0
) -> NDArray[np.float64]:
    """Mean of the nearest training spots in space, one number of neighbours for all targets.

    Parameters
    ----------
    xy, targets
        (spot, 2) and (spot, target) of the training spots.
    at
        (other, 2) where to predict.
    seed
        Fixes the folds.

    Returns
    -------
    ndarray
        (other, target).
    """
    scale = _variance(targets)
    folds = _folds(len(xy), seed)
    candidates = [k for k in NEIGHBOURS if k <= min(len(fitted) for fitted, _ in folds)]
    errors = np.zeros(len(candidates))
    for fitted, left_out in folds:
        for i, k in enumerate(candidates):
            guess = _mean_of_nearest(xy[fitted], targets[fitted], xy[left_out], k)
            errors[i] += ((guess - targets[left_out]) ** 2 / scale).sum()
    return _mean_of_nearest(xy, targets, at, candidates[int(errors.argmin())])


def _variance(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    variance = targets.var(axis=0)
    return np.where(variance > 0, variance, 1)


def _folds(n: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices of fitted and left-out spots, for every fold."""
    fold = np.random.default_rng(seed).permutation(n) % FOLDS
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]


def _ridge_path(
    z: NDArray[np.float64], targets: NDArray[np.float64], at: NDArray[np.float64], penalties: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Predictions for every penalty, from one decomposition."""
    centre, level = z.mean(axis=0), targets.mean(axis=0)
    u, s, vt = np.linalg.svd(z - centre, full_matrices=False)
    scores, projected = (at - centre) @ vt.T, u.T @ (targets - level)
    return [(scores * (s / (s**2 + penalty))) @ projected + level for penalty in penalties]


def _mean_of_nearest(
    xy: NDArray[np.float64], targets: NDArray[np.float64], at: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    nearest = cKDTree(xy).query(at, k=[*range(1, k + 1)])[1]
    return np.asarray(targets[nearest].mean(axis=1))
