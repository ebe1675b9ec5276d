"""Baselines that are fitted to one block of genes after the other, from sums over spots."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from iscale.model.baselines import NEIGHBOURS, PENALTIES, NearestBaseline, RidgeBaseline


@pytest.mark.parametrize("n_features", [6, 90])
def test_ridge_is_that_of_scikit_learn_with_one_of_the_penalties(n_features) -> None:
    rng = np.random.default_rng(0)
    features, at = rng.normal(5, 3, (60, n_features)), rng.normal(5, 3, (20, n_features))
    targets = features[:, :3] + rng.normal(size=(60, 3))
    found = RidgeBaseline(features, at)(targets)
    centre, spread = features.mean(axis=0), features.std(axis=0)
    z, z_at = (features - centre) / spread, (at - centre) / spread
    errors = [np.abs(Ridge(alpha=p).fit(z, targets).predict(z_at) - found).max() for p in PENALTIES]
    assert min(errors) < 1e-9


def test_nearest_is_that_of_scikit_learn_with_one_of_the_numbers() -> None:
    rng = np.random.default_rng(1)
    xy, at, targets = rng.random((60, 2)), rng.random((20, 2)), rng.normal(size=(60, 3))
    found = NearestBaseline(xy, at)(targets)
    errors = [np.abs(KNeighborsRegressor(k).fit(xy, targets).predict(at) - found).max() for k in NEIGHBOURS if k <= 48]
    assert min(errors) < 1e-12


def test_a_block_of_genes_does_not_depend_on_those_before() -> None:
    rng = np.random.default_rng(2)
    features, xy, targets = rng.normal(size=(60, 5)), rng.random((60, 2)), rng.normal(size=(60, 4))
    for baseline in (RidgeBaseline(features, features), NearestBaseline(xy, xy)):
        alone = baseline(targets[:, 2:])
        baseline(targets[:, :2] * 100)
        np.testing.assert_array_equal(baseline(targets[:, 2:]), alone)
