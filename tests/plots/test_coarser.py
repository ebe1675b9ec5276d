"""A figure of very many spots shows their means."""

from __future__ import annotations

import numpy as np
import pytest

from iscale.plots import stage as module
from iscale.plots.stage import coarser


def test_few_spots_are_drawn_as_they_are() -> None:
    xy, values = np.random.default_rng(0).random((50, 2)), np.arange(100.0).reshape(50, 2)
    found = coarser(xy, 3.0, values)
    np.testing.assert_array_equal(found[0], xy)
    assert set(found[1].tolist()) == {3.0}
    np.testing.assert_array_equal(found[2], values)


def test_many_spots_are_drawn_as_means_over_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DRAWN", 100)
    at = np.stack(np.meshgrid(np.arange(60.0), np.arange(30.0)), axis=-1).reshape(-1, 2)
    xy, radius, means = coarser(at, 0.5, np.column_stack([at[:, 0], np.ones(len(at))]))
    assert 70 <= len(xy) <= 150
    assert len(xy) == len(radius) == len(means)
    assert (len(xy) * np.pi * radius**2)[0] == pytest.approx(60 * 30, rel=0.3)
    np.testing.assert_allclose(means[:, 0], xy[:, 0])
    assert (means[:, 1] == 1).all()
    line = coarser(np.column_stack([np.arange(1000.0), np.zeros(1000)]), 0.5, np.ones((1000, 1)))
    assert len(line[0]) <= 101
