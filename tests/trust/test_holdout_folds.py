"""Spots are held out whole captures, whole regions, or by chance, and what would tell of them is not trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from iscale.errors import InputError
from iscale.trust.folds import FOLDS, cut_evenly, cut_folds


def test_a_capture_is_held_out_whole_and_with_all_that_it_was_merged_into(scene) -> None:
    capture = scene.spots.capture.copy()
    capture[::10] = -1
    folds = cut_folds(replace(scene.spots, capture=capture), "capture", seed=0)
    assert folds.names == ("A", "B")
    for fold in range(2):
        assert set(folds.tested(fold)) == set(np.flatnonzero(capture == fold))
        assert set(np.flatnonzero(folds.trained(fold))) == set(np.flatnonzero(capture == 1 - fold))


def test_a_capture_without_which_too_few_spots_are_left_is_trained_on_only(scene) -> None:
    capture = np.zeros(len(scene.spots.capture), np.int64)
    capture[:12] = 1
    folds = cut_folds(replace(scene.spots, capture=capture), "capture", seed=0)
    assert folds.names == ("B",)
    assert folds.trained(0).sum() == len(capture) - 12
    assert folds.tested(0).tolist() == list(range(12))


@pytest.mark.parametrize("how", ["spots", "region"])
def test_every_spot_is_held_out_once_in_fifths(scene, how) -> None:
    folds = cut_folds(scene.spots, how, seed=0)
    assert len(folds.names) == FOLDS
    assert np.ptp(np.bincount(folds.fold)) <= 1
    assert all((folds.trained(k) == (folds.fold != k)).all() for k in range(FOLDS))


def test_chance_is_fixed_by_the_seed(scene) -> None:
    one, same, other = (cut_folds(scene.spots, "spots", seed=seed).fold for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_neighbours_are_held_out_together_by_region_and_not_by_chance(scene) -> None:
    nearest = cKDTree(scene.spots.xy_px).query(scene.spots.xy_px, k=2)[1][:, 1]
    together = {}
    for how in ("spots", "region"):
        fold = cut_folds(scene.spots, how, seed=0).fold
        together[how] = (fold == fold[nearest]).mean()
    assert together["region"] > 0.85
    assert together["spots"] < 0.35


def test_parts_are_compact() -> None:
    xy = np.random.default_rng(0).random((1000, 2)) * [2, 1]
    part = cut_evenly(xy, 5)
    assert np.bincount(part).tolist() == [200] * 5
    assert all(np.ptp(xy[part == k], axis=0).prod() < 0.5 for k in range(5))


def test_places_that_are_all_the_same_are_cut_all_the_same() -> None:
    assert np.bincount(cut_evenly(np.zeros((10, 2)), 5)).tolist() == [2] * 5


def test_one_capture_cannot_be_held_out(scene) -> None:
    spots = replace(scene.spots, captures=("A",), capture=np.zeros(len(scene.spots.capture), np.int64))
    with pytest.raises(InputError, match=r"one capture, A.*two are needed"):
        cut_folds(spots, "capture", seed=0)


def test_captures_that_are_all_merged_cannot_be_held_out(scene) -> None:
    spots = replace(scene.spots, capture=np.full(len(scene.spots.capture), -1))
    with pytest.raises(InputError, match=r"A 0, B 0; \d+ spots were merged"):
        cut_folds(spots, "capture", seed=0)


@pytest.mark.parametrize("how", ["spots", "region"])
def test_too_few_spots_cannot_be_held_out(scene, how) -> None:
    few = slice(0, 18)
    spots = replace(
        scene.spots,
        **{name: getattr(scene.spots, name)[few] for name in ("counts", "depth", "xy_px", "radius_um", "capture")},
    )
    with pytest.raises(InputError, match="18 training spots"):
        cut_folds(spots, how, seed=0)
