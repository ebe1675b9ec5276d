"""Features are stored on their own lattice and read smoothed, the same for every way of asking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from numpy.typing import NDArray

from iscale.arrays import apply_on
from iscale.encoders.base import FeatureGroup
from iscale.features.by_region import read_with_halo
from iscale.features.read import box_mean, read_features
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


def test_the_box_may_be_wider_than_the_region() -> None:
    values = np.random.default_rng(2).normal(size=(2, 3, 9)).astype(np.float32)
    np.testing.assert_allclose(box_mean(values, 16), by_definition(values, 16), rtol=0, atol=1e-6)


def test_the_box_is_exact_where_large_values_are_near() -> None:
    values = np.ones((1, 40, 40), np.float32)
    values[:, :10] = 1e30
    np.testing.assert_array_equal(box_mean(values, 4)[:, 12:], 1)


def test_features_may_be_missing_in_places_of_their_own() -> None:
    values = np.random.default_rng(3).normal(size=(20, 12, 15)).astype(np.float32)
    values[values < 0.5] = np.nan
    values[13] = np.nan
    result = box_mean(values, 2)
    assert np.isnan(result[13]).all()
    np.testing.assert_allclose(result, by_definition(values, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [4, 5, 16])
def test_the_box_needs_no_more_than_the_array_api(size: int) -> None:
    """What CuPy has, too; and it gives the same bytes."""
    values = np.random.default_rng(4).normal(size=(11, 23, 31)).astype(np.float32)
    values[:, 5:9, 3:20] = np.nan
    result = box_mean(strict.asarray(values), size)
    assert result.dtype == strict.float32
    np.testing.assert_array_equal(np.asarray(result), box_mean(values, size))


def test_a_region_reads_the_same_as_the_whole(store: RunStore) -> None:
    whole = read_features(store, (FINE, COARSE), Region(0, SHAPE[0], 0, SHAPE[1]))
    assert whole.shape == (3, *SHAPE)
    for region in (Region(0, 16, 0, 16), Region(17, 41, 29, 64), Region(40, 48, 3, 5)):
        part = read_features(store, (FINE, COARSE), region)
        np.testing.assert_allclose(part, whole[(slice(None), *region.slices)], rtol=1e-5, atol=1e-6)


def test_the_groups_are_smoothed_on_the_device_asked_for(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def spy(device: str, *rest: Any) -> Any:
        asked.append(device)
        return apply_on("cpu", *rest)

    monkeypatch.setattr("iscale.features.read.apply_on", spy)
    read_features(store, (FINE, COARSE), Region(0, 16, 0, 16), "cuda:1")
    read_features(store, (FINE,), Region(0, 16, 0, 16))
    assert asked == ["cuda:1", "cuda:1", "cpu"]


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
