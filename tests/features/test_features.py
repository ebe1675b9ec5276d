"""Features are stored on their own lattice and read smoothed, the same for every way of asking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from iscale.encoders.base import FeatureGroup
from iscale.features.read import box_mean, read_features
from iscale.features.stage import read_with_halo
from iscale.geometry import Region
from iscale.store import layout
from iscale.store.run_store import RunStore

SHAPE = (48, 64)
FINE = FeatureGroup("fine", ("a", "b"), stride=1, smooth=4)
COARSE = FeatureGroup("coarse", ("c",), stride=4, smooth=16)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path)
    store.create()
    rng = np.random.default_rng(0)
    store.make_group("tissue", {})
    store.make(layout.mask("tissue/mask", SHAPE))
    mask = np.ones(SHAPE, bool)
    mask[:20, :30] = False
    store.write("tissue/mask", Region(0, *SHAPE[:1], 0, SHAPE[1]), mask)
    store.make_group("features", {})
    for group in (FINE, COARSE):
        array = layout.features(group.name, len(group.features), SHAPE, group.stride)
        store.make(array)
        values = rng.normal(size=array.shape).astype(np.float16)
        kept = mask.reshape(SHAPE[0] // group.stride, group.stride, SHAPE[1] // group.stride, group.stride).any((1, 3))
        store.write(array.path, Region(0, array.shape[1], 0, array.shape[2]), np.where(kept, values, np.nan))
    return store


def by_definition(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Mean over offsets -size/2 to size/2 - 1, borders reflected with the edge repeated, of what is not NaN."""
    low, high = size // 2, size - size // 2 - 1
    padded = np.pad(values, [(0, 0), (low, high), (low, high)], mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    there = np.isfinite(windows)
    total = np.where(there, windows, 0).astype(np.float64).sum(axis=(3, 4))
    count = there.sum(axis=(3, 4))
    return np.where(count, total / np.maximum(count, 1), np.nan).astype(np.float32)


@pytest.mark.parametrize("size", [2, 4, 5, 16])
def test_the_box_is_the_published_one(size: int) -> None:
    values = np.random.default_rng(1).normal(size=(2, 40, 30)).astype(np.float32)
    values[:, 5:9, 3:20] = np.nan
    np.testing.assert_allclose(box_mean(values, size), by_definition(values, size), rtol=0, atol=1e-6)


def test_a_region_reads_the_same_as_the_whole(store: RunStore) -> None:
    whole = read_features(store, (FINE, COARSE), Region(0, SHAPE[0], 0, SHAPE[1]))
    assert whole.shape == (3, *SHAPE)
    for region in (Region(0, 16, 0, 16), Region(17, 41, 29, 64), Region(40, 48, 3, 5)):
        part = read_features(store, (FINE, COARSE), region)
        np.testing.assert_allclose(part, whole[(slice(None), *region.slices)], rtol=1e-5, atol=1e-6)


def test_off_tissue_there_is_nothing_and_on_tissue_everything(store: RunStore) -> None:
    whole = read_features(store, (FINE, COARSE), Region(0, SHAPE[0], 0, SHAPE[1]))
    assert np.isnan(whole[:, :20, :30]).all()
    assert np.isfinite(whole[:, 20:]).all()


def test_beyond_the_slide_the_edge_is_repeated(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.create()
    store.make_group("image", {})
    store.make(layout.image_level(0, (256, 512)))
    pixels = np.random.default_rng(0).integers(0, 255, (3, 256, 512), np.uint8)
    store.write("image/0", Region(0, 256, 0, 512), pixels)
    read = read_with_halo(store, Region(0, 256, 256, 512), 300)
    expected = np.pad(pixels, [(0, 0), (300, 300), (300, 300)], mode="edge")[:, :, 256:]
    np.testing.assert_array_equal(read, expected)
