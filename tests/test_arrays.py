"""The same functions run on whatever library the device asks for, and results come back as NumPy arrays."""

from __future__ import annotations

import contextlib
import logging
import sys
import types
from collections.abc import Iterator

import array_api_strict as strict
import numpy as np
import pytest

from iscale import arrays
from iscale.arrays import (
    apply_on,
    block_cells,
    block_mean,
    block_mode,
    block_share,
    block_view,
    downsampled,
    halve,
    pixel_mean,
)


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Whether CuPy is there is found out once per process."""
    arrays._cupy.cache_clear()
    yield
    arrays._cupy.cache_clear()


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A stand-in for CuPy whose arrays are those of the strict array API; gives the devices that were entered."""
    entered: list[int] = []

    @contextlib.contextmanager
    def device(number: int) -> Iterator[None]:
        entered.append(number)
        yield

    cupy = types.ModuleType("cupy")
    cupy.__dict__.update(asarray=strict.asarray, asnumpy=np.asarray, cuda=types.SimpleNamespace(Device=device))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return entered


@pytest.mark.parametrize(("device", "number"), [("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_computes_with_cupy_on_that_gpu(devices: list[int], device: str, number: int) -> None:
    seen: list[object] = []

    def doubled(values: arrays.Array) -> arrays.Array:
        seen.append(values)
        return values + values

    result = apply_on(device, doubled, np.arange(4))
    assert devices == [number]
    assert not isinstance(seen[0], np.ndarray)
    assert isinstance(result, np.ndarray)
    assert result.tolist() == [0, 2, 4, 6]


def test_a_cpu_computes_with_numpy_though_cupy_is_there(devices: list[int]) -> None:
    values = np.arange(3)
    assert apply_on("cpu", lambda array: array, values) is values
    assert devices == []


def test_without_cupy_numpy_computes_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    with caplog.at_level(logging.WARNING, "iscale"):
        for _ in range(2):
            np.testing.assert_array_equal(apply_on("cuda", halve, pixels), halve(pixels))
        apply_on("cpu", halve, pixels)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "CuPy cannot be imported" in caplog.text


def test_a_block_off_the_end_is_the_mean_of_its_part() -> None:
    assert block_mean(np.array([[1, 2, 5]], np.float32), 2).tolist() == [[1.5, 5.0]]
    assert block_share(np.array([[True, False, True]]), 2).tolist() == [[0.5, 1.0]]
    assert pixel_mean(np.array([[[1], [2], [5]]], np.uint8), 2).tolist() == [[[1.5], [5.0]]]
    assert block_mode(np.array([[1, 2, 5]], np.uint8), 2).tolist() == [[1, 5]]


@pytest.mark.parametrize("side", [1, 2, 3, 8])
def test_every_block_is_made_of_its_own_cells(side: int) -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(5, 2, (2, 21, 34))
    values[:, rng.random((21, 34)) < 0.4] = np.nan
    pixels = rng.integers(0, 256, (21, 34, 3), dtype=np.uint8)
    labels = rng.integers(0, 4, (21, 34), dtype=np.uint8)
    for i, j in np.ndindex(-(-21 // side), -(-34 // side)):
        own = (slice(i * side, (i + 1) * side), slice(j * side, (j + 1) * side))
        cells = values[(slice(None), *own)].reshape(2, -1)
        known = np.isfinite(cells[0])
        mean = np.nanmean(cells, axis=1) if known.any() else np.full(2, np.nan)
        np.testing.assert_allclose(block_mean(values, side)[:, i, j], mean)
        if side > 1:
            half = mean if known.sum() >= side**2 / 2 else np.full(2, np.nan)
            np.testing.assert_allclose(block_mean(values, side, least=0.5)[:, i, j], half)
        mean = pixels[own].reshape(-1, 3).mean(axis=0)
        np.testing.assert_array_equal(pixel_mean(pixels, side)[i, j], mean.astype(np.float32))
        np.testing.assert_array_equal(downsampled(pixels, side)[i, j], np.floor(mean + 0.5))
        assert block_share(labels > 1, side)[i, j] == np.float32((labels[own] > 1).mean())
        counts = np.bincount(labels[own].ravel(), minlength=4)[1:]
        assert block_mode(labels, side)[i, j] == (counts.argmax() + 1 if counts.any() else 0)


def test_whole_blocks_are_seen_in_place() -> None:
    values = np.arange(24).reshape(4, 6)
    assert np.shares_memory(block_view(values, 2), values)
    assert block_cells(values, 2)[1, 2].tolist() == [16, 17, 22, 23]


def test_halving_is_the_rounded_mean_in_both_layouts() -> None:
    image = np.random.default_rng(1).integers(0, 256, (301, 402, 3), dtype=np.uint8)
    exact = np.pad(image, ((0, 1), (0, 0), (0, 0)), mode="edge").reshape(151, 2, 201, 2, 3).mean((1, 3))
    assert np.array_equal(halve(image), np.floor(exact + 0.5))
    channels = np.ascontiguousarray(image.transpose(2, 0, 1))
    assert np.array_equal(halve(channels, channels_first=True), halve(image).transpose(2, 0, 1))
    assert np.array_equal(halve(image), downsampled(image, 2))
    assert (halve(np.full((8, 8, 3), 255, np.uint8)) == 255).all()


@pytest.mark.parametrize("shape", [(8, 6, 3), (7, 6, 3), (8, 5, 3), (1, 1, 3)])
def test_halving_needs_no_more_than_the_array_api(shape: tuple[int, int, int]) -> None:
    """What CuPy has, too; and it gives the same bytes."""
    image = np.random.default_rng(6).integers(0, 256, shape, dtype=np.uint8)
    channels = np.ascontiguousarray(image.transpose(2, 0, 1))
    for pixels, first in ((image, False), (channels, True)):
        result = halve(strict.asarray(pixels), channels_first=first)
        assert result.dtype == strict.uint8
        np.testing.assert_array_equal(np.asarray(result), halve(pixels, channels_first=first))
