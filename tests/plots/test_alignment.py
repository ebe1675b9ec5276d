"""The figure of an alignment is a picture of known width and bounded size that says the verdict, of any capture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iscale.align.quality import Quality
from iscale.plots.alignment import LARGEST_BYTES, VERDICT_COLOURS, draw_alignment
from iscale.slide.overview import Overview
from iscale.transform import Transform

RIGHT = Quality(0.98, 0.97, 0.48, 0.16, 25, 0.99, 0.99, 0.0, 0.44, 0.3, None)


def _tissue(full_um: float | None = 1.0) -> Overview:
    """Stained noise on glass, 4 full-resolution pixels to one: nothing compresses worse."""
    rng = np.random.default_rng(0)
    rgb = np.full((400, 500, 3), 245, np.uint8)
    rgb[100:300, 100:400] = np.clip(rng.normal((150, 90, 160), 40, (200, 300, 3)), 0, 255)
    return Overview(rgb, np.diag([4.0, 4.0, 1.0]), full_um)


def _spots(n: int = 5) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(450, 1550, n), np.linspace(450, 1150, n))
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def _drawn(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def _pixels_of(picture: np.ndarray, colour: str) -> int:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture.astype(int) - wanted).max(axis=-1) <= 3).sum())


def test_the_figure_is_1400_px_wide_small_and_says_the_verdict(tmp_path: Path) -> None:
    image = _tissue()
    start = Transform(np.array([[1.0, 0.0, 300.0], [0.0, 1.0, -100.0], [0.0, 0.0, 1.0]]), "not aligned")
    paths = tmp_path / "new" / "good.png", tmp_path / "bad.png"
    for path, quality in zip(paths, (RIGHT, replace(RIGHT, overlap=0.3)), strict=True):
        draw_alignment(path, image, image, start, Transform(np.eye(3)), _spots(), 50.0, "D1", quality)
        assert path.stat().st_size <= LARGEST_BYTES
        assert not path.with_name(path.name + ".part").exists()
    good, bad = (_drawn(path) for path in paths)
    assert good.shape[1] == bad.shape[1] == 1400
    assert np.all(good[0, 0] == 255), "paper is white, whatever the palette"
    title = slice(0, 60), slice(0, 300)
    assert _pixels_of(good[title], VERDICT_COLOURS["good"]) > 100 > _pixels_of(bad[title], VERDICT_COLOURS["good"])
    assert _pixels_of(bad[title], VERDICT_COLOURS["bad"]) > 100 > _pixels_of(good[title], VERDICT_COLOURS["bad"])


def test_without_an_image_of_the_capture_there_are_two_panels(tmp_path: Path) -> None:
    image = _tissue(full_um=None)
    drawn = []
    for name, capture in (("with", image), ("without", None)):
        path = tmp_path / f"{name}.png"
        draw_alignment(path, capture, image, Transform(np.eye(3)), Transform(np.eye(3)), _spots(), 50.0, "D1", RIGHT)
        drawn.append(_drawn(path))
    assert drawn[1].shape[1] == 1400
    assert drawn[1].shape[0] < 0.65 * drawn[0].shape[0]


@pytest.mark.parametrize(
    "xy",
    [np.zeros((0, 2)), np.array([[500.0, 500.0]]), np.array([[500.0, 500.0], [600.0, 600.0], [700.0, 700.0]])],
    ids=["none", "one", "on a line"],
)
def test_few_spots_are_drawn_as_well(tmp_path: Path, xy: np.ndarray) -> None:
    path = tmp_path / "few.png"
    draw_alignment(path, None, _tissue(), Transform(np.eye(3)), Transform(np.eye(3)), xy, 50.0, "D1", RIGHT)
    assert _drawn(path).shape[1] == 1400


def test_a_capture_placed_far_off_and_very_many_cells_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cells = rng.uniform((450, 450), (1550, 1150), (200_000, 2))
    far = Transform(np.array([[1.0, 0.0, 1e6], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    path = tmp_path / "far.png"
    draw_alignment(path, _tissue(), _tissue(), Transform(np.eye(3)), far, cells, 4.0, "D1", RIGHT)
    assert _drawn(path).shape[1] == 1400
    assert path.stat().st_size <= LARGEST_BYTES
