from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

from iscale.geometry import Region
from iscale.regions import centres as learn
from iscale.regions.centres import distinct, draw_samples, fit_centres, inertia, nearest_centre, position_hash, smooth


def test_numbers_of_places_are_uniform_and_do_not_depend_on_the_tile() -> None:
    whole = position_hash(Region(0, 300, 0, 200), 200, 3)
    np.testing.assert_array_equal(position_hash(Region(100, 160, 30, 90), 200, 3), whole[100:160, 30:90])
    share = whole.astype(np.float64) / 2**64
    assert np.histogram(share, 10, (0, 1))[0] == pytest.approx(6000, rel=0.06)
    assert abs(np.corrcoef(share[:, 1:].ravel(), share[:, :-1].ravel())[0, 1]) < 0.02
    assert (whole != position_hash(Region(0, 300, 0, 200), 200, 4)).all()


def test_all_of_a_small_slide_is_drawn(predicted) -> None:
    store, _ = predicted()
    tissue, cells = (np.asarray(store.array(f"tissue/{name}")[...]) for name in ("mask", "cells"))
    embedding = np.asarray(store.array("embedding/embedding")[...])
    for rows, there in zip(draw_samples(store, ("tissue/mask", "tissue/cells"), 0), (tissue, cells), strict=True):
        expected = smooth(embedding, there)
        np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(expected, axis=0))


def test_of_a_large_slide_a_bounded_share_from_everywhere(predicted, monkeypatch) -> None:
    store, _ = predicted()
    (every,) = draw_samples(store, ("tissue/mask",), 0)
    monkeypatch.setattr(learn, "SAMPLE_BYTES", 4 * 4 * 2000)
    (some,) = draw_samples(store, ("tissue/mask",), 0)
    assert 1600 < len(some) <= 2000 < len(every)
    np.testing.assert_allclose(some.mean(axis=0), every.mean(axis=0), atol=0.1)
    assert len(draw_samples(store, ("tissue/mask",), 0)[0]) == len(some)
    (other,) = draw_samples(store, ("tissue/mask",), 1)
    assert len(other) != len(some) or (other != some).any()


def test_batches_lose_little_to_k_means_of_all_at_once() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(20_000, 8)) + 2 * rng.normal(size=(7, 8))[rng.integers(0, 7, 20_000)]).astype(np.float32)
    full = KMeans(10, n_init=5, random_state=0).fit(rows)
    centres = fit_centres(rows, 10, 0)
    assert inertia(rows, centres) < 1.02 * full.inertia_
    assert inertia(rows, full.cluster_centers_.astype(np.float32)) == pytest.approx(full.inertia_, rel=1e-4)
    np.testing.assert_array_equal(centres, fit_centres(rows, 10, 0))
    sizes = np.bincount(nearest_centre(rows, centres))
    assert (np.diff(sizes) <= 0).all()


def test_centres_that_are_none_are_never_nearest() -> None:
    centres = np.array([[np.nan, np.nan], [5, 5], [0, 0]], np.float32)
    assert nearest_centre(np.array([[0, 1], [4, 4]], np.float32), centres).tolist() == [2, 1]
    assert nearest_centre(np.empty((0, 2), np.float32), centres).tolist() == []


def test_different_rows_are_counted_up_to_enough(monkeypatch) -> None:
    monkeypatch.setattr(learn, "DISTINCT_ROWS", 4)
    rows = np.array([[1], [1], [1], [1], [2], [3]], np.float32)
    assert [distinct(rows, n) for n in (1, 2, 3, 9)] == [1, 2, 3, 3]
    assert distinct(rows[:0], 5) == 0
