from __future__ import annotations

import numpy as np

from iscale.captures.spots import DiscFeatures
from iscale.model.baselines import NearestBaseline, RidgeBaseline, disc_mean_features


def test_disc_means_are_per_spot_and_missing_where_there_is_no_disc() -> None:
    discs = DiscFeatures(np.array([[1, 2], [3, 4], [10, 20]], np.float32), np.array([0, 0, 2]))
    means = disc_mean_features(discs, 4)
    np.testing.assert_array_equal(means[[0, 2]], [[2, 3], [10, 20]])
    assert np.isnan(means[[1, 3]]).all()


def test_ridge_finds_what_features_say_and_shrinks_what_they_do_not() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(3, [1, 10, 0.1, 1], size=(200, 4))
    clear = features @ rng.normal(size=(4, 2))
    assert np.corrcoef(RidgeBaseline(features[:100], features[100:])(clear[:100])[:, 0], clear[100:, 0])[0, 1] > 0.99
    noise = rng.normal(size=(200, 2))
    assert RidgeBaseline(features[:100], features[100:])(noise[:100]).std() < 0.3


def test_nearest_takes_few_neighbours_for_sharp_maps_and_many_for_noise() -> None:
    rng = np.random.default_rng(0)
    xy = rng.random((400, 2)) * 100
    sharp = np.floor(xy[:, :1] / 10) % 2 * 10
    guess = NearestBaseline(xy[:300], xy[300:])(sharp[:300])
    assert (np.abs(guess - sharp[300:]) < 5).mean() > 0.8
    noise = rng.normal(size=(400, 1))
    assert NearestBaseline(xy[:300], xy[300:])(noise[:300]).std() < 0.3


def test_few_spots_are_enough() -> None:
    xy = np.arange(10.0).reshape(5, 2)
    assert NearestBaseline(xy, xy)(xy).shape == (5, 2)
