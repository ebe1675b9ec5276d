"""Stains are told apart, and discs and positions lie where they are said to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from iscale.align.structure import disc_mean, haematoxylin, value_at


def test_haematoxylin_is_told_from_eosin() -> None:
    h, e = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])
    h, e = h / np.linalg.norm(h), e / np.linalg.norm(e)
    found = haematoxylin(np.array([[0.7 * h, 0.7 * e, 0.7 * h + 0.3 * e]]))
    np.testing.assert_allclose(found, [[0.7, 0.0, 0.7]], atol=1e-9)


def test_disc_means_and_values_follow_positions_from_the_corner() -> None:
    image = np.zeros((40, 60))
    image[20, 30] = 1.0
    spread = disc_mean(image, 5.0)
    assert spread.sum() == pytest.approx(1.0)
    assert spread[20, 30] == pytest.approx(1 / (math.pi * 25), rel=0.1)
    assert abs(spread[20, 37]) < 1e-12
    assert value_at(image, np.array([[30.5, 20.5], [31.0, 20.5], [-9.0, 3.0]])).tolist() == [1.0, 0.5, 0.0]
