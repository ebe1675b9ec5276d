"""Maps of classes: reduced to the most frequent label, in colours that can be told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image
from scipy.spatial.distance import pdist
from skimage.color import rgb2lab

from iscale.plots.labels import class_colours, draw_labels, label_map

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]


def _rgb(colours: list[str]) -> np.ndarray:
    return np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])


def _as_seen(rgb: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(matrix).T, 0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("matrix", [np.eye(3).tolist(), PROTANOPIA, DEUTERANOPIA], ids=["all", "protan", "deutan"])
def test_thirty_colours_can_be_told_apart_by_all_eyes(matrix: list[list[float]]) -> None:
    seen = _as_seen(_rgb([*class_colours(30), "#ffffff"]), matrix)
    assert pdist(rgb2lab(seen)).min() > 10


def test_colours_do_not_depend_on_how_many_there_are_and_go_beyond_thirty() -> None:
    assert class_colours(100)[:30] == class_colours(30)
    assert len(set(class_colours(60))) == 60


def test_a_block_takes_the_label_that_most_of_it_has() -> None:
    labels = np.zeros((3, 600, 700), np.uint8)
    rng = np.random.default_rng(0)
    labels[1] = rng.integers(0, 5, (600, 700))
    stored = zarr.create_array(zarr.storage.MemoryStore(), data=labels, chunks=(1, 128, 128))
    found = label_map(stored, 1, 8)
    assert found.shape == (75, 88)
    for i, j in [(0, 0), (74, 86), (30, 87), (63, 64), (64, 63)]:
        block = labels[1, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
        counts = np.bincount(block.ravel(), minlength=5)
        expected = 0 if 2 * counts[0] > block.size else 1 + int(counts[1:].argmax())
        assert found[i, j] == expected
    np.testing.assert_array_equal(label_map(stored, 1, 1), labels[1])
    assert not label_map(stored, 0, 8).any()


def test_thin_and_half_empty_blocks_are_not_lost() -> None:
    labels = np.array([[1, 0, 0, 0], [2, 2, 0, 3]], np.uint8)
    assert label_map(labels, None, 2).tolist() == [[2, 0]]
    with pytest.raises(ValueError, match="factor 3"):
        label_map(labels, None, 3)


def test_a_map_of_classes_shows_each_in_its_colour(tmp_path: Path) -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[:, :40], labels[30:, 40:] = 1, 2
    names = ["<script>", "costs $5 & $6"]
    draw_labels(tmp_path / "new" / "map.png", labels, names, class_colours(2), 8.0, "two $ classes")
    picture = np.asarray(Image.open(tmp_path / "new" / "map.png").convert("RGB")).reshape(-1, 3)
    counts = [(picture == np.round(255 * colour)).all(axis=1).sum() for colour in _rgb(class_colours(2))]
    assert counts[0] == pytest.approx(2 * counts[1], rel=0.02)
    with pytest.raises(ValueError, match="label 2 of 1"):
        draw_labels(tmp_path / "map.png", labels, names[:1], class_colours(1), 8.0, "")


def test_many_classes_have_their_legend(tmp_path: Path) -> None:
    names = [f"class {i} with a name that is far too long for a legend of this figure" for i in range(60)]
    labels = np.arange(60, dtype=np.uint8).reshape(6, 10) + 1
    draw_labels(tmp_path / "map.png", labels, names, class_colours(60), 8.0, "many")
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.width > 1500
