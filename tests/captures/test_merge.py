"""Merging near spots: the published DBSCAN where nothing chains, an even mosaic where everything does."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN

from iscale.captures.merge import CAP, _single_linkage, merge_labels


def dbscan(xy: NDArray[np.float64], dist: float) -> NDArray[np.int64]:
    return np.asarray(DBSCAN(eps=dist, min_samples=1).fit(xy).labels_)


def widest(xy: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return max(np.ptp(xy[labels == k], axis=0).max() for k in range(labels.max() + 1))


@pytest.mark.real
@pytest.mark.parametrize(("dist", "n_spots"), [(50, 349), (100, 286), (130, 237)])
def test_her2st_merges_as_published(data_dir: Path, dist: float, n_spots: int) -> None:
    affines = json.loads((data_dir / "her2st/alignment.json").read_text())
    xy = []
    for name in ("C3", "C5"):
        spots = pd.read_csv(data_dir / f"her2st/{name}.spots.tsv", sep="\t").query("selected == 1")
        affine = np.array(affines[name]["affine_xy_to_C4_px"])
        xy.append((spots[["pixel_x", "pixel_y"]].to_numpy() @ affine[:, :2].T + affine[:, 2]) * 0.688 / 0.75)
    points = np.concatenate(xy)
    labels = merge_labels(points, dist)
    assert labels.max() + 1 == n_spots
    np.testing.assert_array_equal(labels, dbscan(points, dist))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=60),
    st.floats(0.5, 6),
)
def test_clusters_within_the_cap_are_the_published_ones(places: list[tuple[int, int]], dist: float) -> None:
    xy = np.array(places, dtype=np.float64)
    labels, published = merge_labels(xy, dist), dbscan(xy, dist)
    assert widest(xy, labels) <= CAP * dist
    for k in range(published.max() + 1):
        members = published == k
        if np.ptp(xy[members], axis=0).max() <= CAP * dist:
            assert len(set(labels[members])) == 1
        assert not set(labels[members]) & set(labels[~members])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 400), st.floats(0.02, 30), st.sampled_from([1.0, 0.2, 0.03]))
def test_chains_are_those_of_dbscan_in_sparse_and_crowded_places(
    seed: int, n: int, dist: float, crowding: float
) -> None:
    """Before large clusters are cut; places crowd around a few middles."""
    rng = np.random.default_rng(seed)
    xy = rng.random((8, 2))[rng.integers(0, 8, n)] * 20 + rng.normal(0, 10 * crowding, (n, 2))
    labels, published = _single_linkage(xy, dist), dbscan(xy, dist)
    assert len({*zip(labels.tolist(), published.tolist(), strict=True)}) == len({*labels}) == len({*published})


def test_two_crowds_are_linked_by_their_nearest_places_alone() -> None:
    rng = np.random.default_rng(0)
    crowd = rng.random((200, 2)) * 0.5  # more pairs of places than are compared one by one
    for gap, n in ((0.999, 1), (1.001, 2)):
        tips = np.array([[0.6, 0.3], [0.6 + gap, 0.3]])
        places = np.concatenate([crowd, crowd + np.array([0.7 + gap, 0]), tips])
        assert _single_linkage(places, 1.0).max() + 1 == n


def test_points_on_a_line_and_single_points() -> None:
    assert merge_labels(np.zeros((0, 2)), 1.0).tolist() == []
    assert merge_labels(np.array([[3.0, 4.0]]), 1.0).tolist() == [0]
    line = np.array([[9.0, 9], [0, 0], [0.5, 0.5], [9.2, 9.2], [5, 5], [0, 0]])
    assert merge_labels(line, 1.0).tolist() == [0, 1, 1, 0, 2, 1]


def test_a_pair_is_not_cut_apart() -> None:
    xy = np.array([[0, 0], [90, 0], [180, 0], [181, 5], [270, 0], [360, 0]], dtype=np.float64)
    labels = merge_labels(xy, 100)
    assert labels[2] == labels[3]
    assert widest(xy, labels) <= 200


def test_the_order_of_the_spots_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    xy = rng.random((2000, 2)) * 1000
    order = rng.permutation(len(xy))
    a, b = merge_labels(xy, 40)[order], merge_labels(xy[order], 40)
    assert len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.parametrize("jitter", [0.0, 3.0])
def test_a_dense_capture_becomes_an_even_mosaic(jitter: float) -> None:
    n, pitch, dist = 320, 4.0, 100.0  # 102,400 bins of 2 um, each with 2,000 others within dist
    rng = np.random.default_rng(0)
    xy = np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2) * pitch
    xy = xy + rng.uniform(-jitter, jitter, xy.shape)
    tracemalloc.start()
    labels = merge_labels(xy, dist)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    sizes = np.bincount(labels)
    assert widest(xy, labels) <= CAP * dist
    assert len(sizes) <= 4 * (n * pitch / (CAP * dist)) ** 2
    assert sizes.min() > sizes.max() / 8
    assert peak < 300 * len(xy)
