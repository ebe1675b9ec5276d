"""Simple predictors of spots, to judge the model by: ridge regression on features, and nearest neighbours in space.

Both predict what they are scored on (the logarithm of counts, or of normalised counts) directly, and choose their one
parameter by cross-validation over the training spots.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

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


class RidgeBaseline:
    """Ridge regression on standardised features, for one block of targets after the other.

    What does not depend on the targets is done once; each block has a penalty of its own. What is held is of the size
    of the features, and of their number's square.

    Parameters
    ----------
    features
        (spot, feature) of the training spots, all finite.
    at
        (other, feature) where to predict.
    seed
        Fixes the folds.
    """

    def __init__(self, features: NDArray[np.float64], at: NDArray[np.float64], *, seed: int = 0) -> None:
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        deviation = np.where(deviation > 0, deviation, 1)
        fold_of = _fold_of(len(features), seed)
        self._order = np.argsort(fold_of, kind="stable")
        ends = np.cumsum(np.bincount(fold_of, minlength=FOLDS)).tolist()
        self._folds = [slice(a, b) for a, b in pairwise([0, *ends])]
        self._z = features[self._order]
        self._z -= mean
        self._z /= deviation
        self._at = (at - mean) / deviation
        self._sums = [self._z[fold].sum(axis=0) for fold in self._folds]
        squares = [self._z[fold].T @ self._z[fold] for fold in self._folds]
        square, total = np.sum(squares, axis=0), np.sum(self._sums, axis=0)
        n = len(features)
        self._whole = _Solver(square, total, n)
        self._without = [
            _Solver(square - own, total - own_sum, n - (fold.stop - fold.start))
            for own, own_sum, fold in zip(squares, self._sums, self._folds, strict=True)
        ]

    def __call__(self, targets: NDArray[np.float64]) -> NDArray[np.float64]:
        """(other, target) for the (spot, target) of the training spots."""
        targets = targets[self._order]
        scale = _variance(targets)
        products = [self._z[fold].T @ targets[fold] for fold in self._folds]
        sums = [targets[fold].sum(axis=0) for fold in self._folds]
        product, total = np.sum(products, axis=0), np.sum(sums, axis=0)
        errors = np.zeros(len(PENALTIES))
        for fold, solver, own, own_sum in zip(self._folds, self._without, products, sums, strict=True):
            path = solver.path(product - own, total - own_sum, PENALTIES)
            for k, (coefficients, constant) in enumerate(path):
                errors[k] += ((self._z[fold] @ coefficients + constant - targets[fold]) ** 2 / scale).sum()
        best = PENALTIES[[errors.argmin()]]
        coefficients, constant = next(self._whole.path(product, total, best))
        return np.asarray(self._at @ coefficients + constant)


class _Solver:
    """Ridge regressions of some spots, from sums over them: of products of features, of features, and their number."""

    def __init__(self, square: NDArray[np.float64], total: NDArray[np.float64], n: int) -> None:
        self._n, self._centre = n, total / n
        values, self._vectors = np.linalg.eigh(square - np.outer(total, self._centre))
        self._values = values.clip(0)

    def path(
        self, product: NDArray[np.float64], total: NDArray[np.float64], penalties: NDArray[np.float64]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Coefficients (feature, target) and constant (target,) per penalty, from sums of products and of targets."""
        projected = self._vectors.T @ (product - np.outer(self._centre, total))
        for penalty in penalties:
            coefficients = self._vectors @ (projected / (self._values + penalty)[:, None])
            yield coefficients, total / self._n - self._centre @ coefficients


class NearestBaseline:
    """Mean of the nearest training spots in space, for one block of targets after the other.

    Of places (spot, 2) and ``at`` (other, 2), where to predict; each block has its own number of neighbours, and the
    seed fixes the folds by which it is chosen.
    """

    def __init__(self, xy: NDArray[np.float64], at: NDArray[np.float64], *, seed: int = 0) -> None:
        fold = _fold_of(len(xy), seed)
        least = len(xy) - int(np.bincount(fold).max())
        self._candidates = [k for k in NEIGHBOURS if k <= least]
        self._folds = []
        for number in range(FOLDS):
            fitted, left_out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            if len(left_out):
                nearest = fitted[_nearest(xy[fitted], xy[left_out], self._candidates[-1])]
                self._folds.append((left_out, nearest))
        self._at = _nearest(xy, at, self._candidates[-1])

    def __call__(self, targets: NDArray[np.float64]) -> NDArray[np.float64]:
        """(other, target) for the (spot, target) of the training spots."""
        scale = _variance(targets)
        errors = np.zeros(len(self._candidates))
        for left_out, nearest in self._folds:
            for i, guess in enumerate(_means(targets, nearest, self._candidates)):
                errors[i] += ((guess - targets[left_out]) ** 2 / scale).sum()
        best = self._candidates[int(errors.argmin())]
        return next(_means(targets, self._at[:, :best], [best]))


def _variance(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    variance = targets.var(axis=0)
    return np.where(variance > 0, variance, 1)


def _fold_of(n: int, seed: int) -> NDArray[np.int64]:
    """(n,): with which fold each spot is left out."""
    return np.asarray(np.random.default_rng(seed).permutation(n) % FOLDS, np.int64)


def _nearest(xy: NDArray[np.float64], at: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """(other, k) indices of the nearest places, the nearest first."""
    return np.asarray(cKDTree(xy).query(at, k=[*range(1, k + 1)])[1], np.int64)


def _means(
    targets: NDArray[np.float64], nearest: NDArray[np.int64], candidates: list[int]
) -> Iterator[NDArray[np.float64]]:
    """(other, target) means of the first so many of the nearest, for every candidate number."""
    total = np.zeros((len(nearest), targets.shape[1]))
    for k in range(nearest.shape[1]):
        total += targets[nearest[:, k]]
        if k + 1 in candidates:
            yield total / (k + 1)
