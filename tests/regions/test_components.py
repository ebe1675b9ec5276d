from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, label

from iscale.geometry import Region
from iscale.regions.components import HALO, SMALL, join_small


def speckled(shape, k, seed, sigma=1.5):
    rng = np.random.default_rng(seed)
    labels = gaussian_filter(rng.normal(size=(k, *shape)), (0, sigma, sigma)).argmax(axis=0) + 1
    labels[gaussian_filter(rng.normal(size=shape), 6) < -0.02] = 0
    return labels.astype(np.uint8)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([16, 32, 64]), st.sampled_from([0.7, 1.5, 3.0]))
def test_tiles_with_their_halo_give_the_whole_map(seed: int, side: int, sigma: float) -> None:
    labels = speckled((150, 110), 5, seed, sigma)
    whole = join_small(labels)
    for tile in Region(0, 150, 0, 110).tiles(side):
        window = tile.grown(HALO, labels.shape)
        np.testing.assert_array_equal(join_small(labels[window.slices])[tile.within(window)], whole[tile.slices])


def test_no_narrower_halo_would_do() -> None:
    """A small component of 19 in a row; its large neighbour has its 20th superpixel 38 away from the first."""
    labels = np.zeros((2, 60), np.uint8)
    labels[1, :19], labels[1, 19:39], labels[0, :5] = 1, 2, 3
    assert HALO == 38
    assert join_small(labels[:, : 1 + HALO])[1, 0] == join_small(labels)[1, 0] == 2
    assert join_small(labels[:, :HALO])[1, 0] == 3


def test_small_components_take_the_label_of_the_longest_border() -> None:
    labels = np.ones((20, 40), np.uint8)
    labels[:, 20:] = 2
    labels[5:8, 18:21] = 3  # 9 superpixels, 8 sides to label 1 and 4 to label 2
    joined = join_small(labels)
    assert set(np.unique(joined)) == {1, 2}
    assert (joined[5:8, 18:21] == 1).all()


def test_components_of_twenty_stay_and_of_nineteen_go() -> None:
    labels = np.ones((30, 30), np.uint8)
    labels[2:6, 2:7] = 2
    labels[10:14, 10:15] = 3
    labels[13, 14] = 1
    joined = join_small(labels)
    assert (joined[2:6, 2:7] == 2).all()
    assert not (joined == 3).any()
    assert SMALL == 20


def test_large_neighbours_win_over_small_ones_with_more_border() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[0:3] = 1
    labels[3, 5] = 2  # one side with large label 1, three with a small component of label 3
    labels[4, 4:7] = 3
    labels[3, [4, 6]] = 3
    joined = join_small(labels)
    assert joined[3, 5] == 1
    assert (joined[4, 4:7] == 1).all()


def test_of_borders_as_long_the_smallest_label_wins() -> None:
    labels = np.zeros((3, 51), np.uint8)
    labels[:, :25], labels[:, 26:] = 5, 4
    labels[1, 25] = 9
    assert join_small(labels)[1, 25] == 4


def test_an_island_keeps_its_label_and_glass_stays_glass() -> None:
    labels = np.zeros((30, 30), np.uint8)
    labels[3:5, 3:5] = 2
    np.testing.assert_array_equal(join_small(labels), labels)
    assert not join_small(np.zeros((4, 4), np.uint8)).any()


def test_an_island_of_two_small_ones_is_decided_among_them() -> None:
    labels = np.zeros((30, 30), np.uint8)
    labels[3:5, 3:5], labels[3:5, 5:9] = 2, 7
    joined = join_small(labels)
    assert (joined[3:5, 3:5] == 7).all()
    assert (joined[3:5, 5:9] == 2).all()


@pytest.mark.parametrize("seed", range(3))
def test_only_small_components_change(seed: int) -> None:
    labels = speckled((90, 90), 4, seed)
    joined = join_small(labels)
    assert ((joined > 0) == (labels > 0)).all()
    for k in range(1, 5):
        parts, n = label(labels == k)
        for part in range(1, n + 1):
            at = parts == part
            if at.sum() >= SMALL:
                assert (joined[at] == k).all()
            else:
                assert len(np.unique(joined[at])) == 1
