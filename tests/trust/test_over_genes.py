"""Agreement over genes in each superpixel is SciPy's and scikit-learn's, whatever is missing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import root_mean_squared_error

from iscale.trust.score_maps import over_genes


def test_each_cell_is_compared_over_the_genes_that_it_has() -> None:
    rng = np.random.default_rng(0)
    true, guess = rng.random((12, 40)), rng.random((12, 40))
    true[:5, 3:20:4] = np.nan
    guess[2:4, 9:30:7] = np.nan
    guess[:, 35] = np.nan
    true[2:, 36] = np.nan
    pearson, rmse = over_genes(true, guess)
    for cell in range(40):
        there = np.isfinite(true[:, cell]) & np.isfinite(guess[:, cell])
        if there.sum() < 3:
            assert np.isnan([pearson[cell], rmse[cell]]).all()
            continue
        pair = true[there, cell], guess[there, cell]
        assert pearson[cell] == pytest.approx(pearsonr(*pair).statistic, abs=1e-9)
        assert rmse[cell] == pytest.approx(root_mean_squared_error(*pair), abs=1e-9)
    assert np.isnan(pearson[35:37]).all()


def test_a_constant_cell_has_no_correlation_and_no_warning() -> None:
    true, guess = np.full((5, 2), 0.5), np.random.default_rng(1).random((5, 2))
    true[:, 1] += np.arange(5)
    pearson, rmse = over_genes(true, guess)
    assert np.isnan(pearson[0])
    assert np.isfinite(pearson[1])
    assert np.isfinite(rmse).all()
