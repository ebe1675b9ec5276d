"""Panels show both images where the transform says, at the resolution they are drawn with."""

from __future__ import annotations

import numpy as np
import pytest

from iscale.plots.alignment import Window, checkerboard, laid_over, sampled, window_about
from iscale.slide.overview import Overview
from iscale.transform import Transform


def test_a_window_is_sampled_where_the_transform_puts_the_capture() -> None:
    rgb = np.zeros((100, 200, 3), np.uint8)
    rgb[30:40, 50:60] = 200
    capture = Overview(rgb, np.diag([10.0, 10.0, 1.0]), 1.0)
    mirrored = Transform(np.array([[-2.0, 0.0, 5000.0], [0.0, 2.0, 100.0], [0.0, 0.0, 1.0]]))
    # The square is at x 500 to 600, y 300 to 400 of the capture: 3800 to 4000, 700 to 900 of the mother.
    pixels, there = sampled(capture, Window(3600.0, 500.0, 600.0, 600.0, 60), mirrored)
    assert pixels.shape == (60, 60, 3)
    assert there.all()
    rows, columns = np.nonzero(pixels[..., 0] > 100)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (20, 40, 20, 40)
    _, outside = sampled(capture, Window(4900.0, 200.0, 200.0, 200.0, 20), mirrored)
    assert outside[:, :10].all()
    assert not outside[:, 10:].any(), "the capture ends at x = 5000"


def test_a_coarse_window_shows_means_not_single_pixels() -> None:
    rgb = np.zeros((400, 400, 3), np.uint8)
    rgb[::2, ::2] = 200
    pixels, _ = sampled(Overview(rgb, np.eye(3), None), Window(0.0, 0.0, 400.0, 400.0, 50))
    assert np.all(pixels == 50)


def test_a_window_shows_all_points_with_a_margin() -> None:
    points = np.array([[100.0, 50.0], [1100.0, 150.0]])
    window = window_about(points, 300)
    left, right, bottom, top = window.extent
    assert (left + right) / 2 == 600
    assert (top + bottom) / 2 == 100
    assert right - left == pytest.approx(1240)
    assert window.height / window.width == pytest.approx(0.6), "no panel is slimmer"
    assert window.shape == (180, 300)


def test_laid_over_and_checkerboard_hold_both_images_where_the_capture_is() -> None:
    capture, mother = np.full((80, 80, 3), 100, np.uint8), np.full((80, 80, 3), 200, np.uint8)
    there = np.zeros((80, 80), bool)
    there[:, :40] = True
    over = laid_over(capture, mother, there)
    assert np.all(over[:, :40] == 150)
    assert np.all(over[:, 40:] == 200)
    board = checkerboard(capture, mother, there)
    assert np.all(board[:, 40:] == 200)
    assert np.mean(board[:, :40] == 100) == 0.5
    assert [int(v) for v in board[5, [5, 15, 25], 0]] == [200, 100, 200]
