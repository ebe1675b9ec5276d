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
from iscale.arrays import apply_on
from iscale.slide.resample import halve


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
