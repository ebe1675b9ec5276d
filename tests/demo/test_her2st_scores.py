"""The scores are what their definition says."""

from __future__ import annotations

import numpy as np
import pytest

from iscale.demo.her2st import clear_of_border, disc_sums, pearson, score


def test_pearson_is_numpys_and_a_constant_guess_scores_nothing() -> None:
    rng = np.random.default_rng(0)
    true, guess = rng.random((2, 30, 4))
    guess[:, 1] = 7
    true[:, 2] = 0
    r = pearson(true, guess)
    assert r[0] == pytest.approx(np.corrcoef(true[:, 0], guess[:, 0])[0, 1])
    assert r[1] == 0
    assert np.isnan(r[2])


def test_depth_alone_is_seen_by_counts_but_not_by_the_depth_normalised_score() -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(1000, 20000, 200)
    share = rng.dirichlet(np.full(5, 30.0), 200)
    measured = share * depth[:, None]
    flat = np.repeat(share.mean(axis=0)[None], 200, axis=0)
    by_depth = score(measured, depth, flat * depth[:, None], depth)
    assert (by_depth.counts > 0.8).all()
    assert (np.abs(by_depth.depth_normalised) < 0.2).all()
    exact = score(measured, depth, measured * 3, depth * 3)
    np.testing.assert_allclose(exact.depth_normalised, 1)


def test_spots_without_prediction_are_left_out() -> None:
    measured = np.random.default_rng(0).poisson(5, (20, 3)).astype(float)
    predicted = measured.copy()
    predicted[3] = np.nan
    scores = score(measured, measured.sum(axis=1), predicted, predicted.sum(axis=1))
    assert scores.n_spots == 19
    assert np.nanmedian(scores.counts) == pytest.approx(1)


def test_disc_sums_follow_the_definition() -> None:
    values = np.arange(2 * 20 * 30, dtype=float).reshape(2, 20, 30)
    values[:, :, 0] = np.nan
    rows, columns = np.mgrid[:20, :30]
    xy = np.array([[16 * 10 + 3.0, 16 * 7 + 15.9], [5.0, 5.0], [479.0, 319.0]])
    sums = disc_sums(values, xy, 4.17)
    for spot, (row, column) in enumerate([(7, 10), (0, 0), (19, 29)]):
        disc = (rows - row) ** 2 + (columns - column) ** 2 <= 4.17**2
        np.testing.assert_allclose(sums[spot], np.nansum(values[:, disc], axis=1))
    assert np.isnan(disc_sums(values, np.array([[5.0, 100.0]]), 0.5)).all()


def test_margin_is_seven_superpixels() -> None:
    xy = np.array([[7 * 16, 7 * 16], [7 * 16 - 0.1, 200], [(30 - 7) * 16 - 0.1, 200], [(30 - 7) * 16, 200]])
    assert clear_of_border(xy, (40, 30)).tolist() == [True, False, True, False]
