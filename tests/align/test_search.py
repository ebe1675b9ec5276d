"""The search over places, on pictures whose answer is known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from iscale.align.search import Candidate, Freedom, Picture, ascend, search, turned

TO_A_PIXEL = 0.8
"""Shifts are whole pixels of the search, rotations are about the middle of a picture, which may be half of one."""


def blobs(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """An uneven shape with structure inside."""
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=shape), 4)
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = ((y - 60) / 30) ** 2 + ((x - 50) / 40) ** 2 < 1 + 4 * noise
    return np.where(inside, 0.6 + 3 * noise, 0).clip(0).astype(np.float32)


def picture(values: np.ndarray) -> Picture:
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return Picture(tensor, (tensor > 0).float(), tensor[None])


def corners_apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, int]) -> float:
    points = np.array([[0, 0, 1], [shape[1], 0, 1], [0, shape[0], 1], [shape[1], shape[0], 1]], float)
    return float(np.hypot(*((points @ one.T - points @ other.T)[:, :2]).T).max())


def test_a_cut_out_piece_is_found_where_it_was() -> None:
    mother = blobs((130, 120))
    best = search(picture(mother[25:95, 10:90]), picture(mother), [1.0])[0]
    expected = np.array([[1, 0, 10], [0, 1, 25], [0, 0, 1.0]])
    assert corners_apart(best.matrix, expected, (70, 80)) < TO_A_PIXEL
    assert best.score > 0.97


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_turned_and_mirrored_pictures_are_found(quarters: int, mirrored: bool) -> None:
    mother = blobs((130, 120))
    h, w = mother.shape
    seen = np.rot90(mother[:, ::-1] if mirrored else mother, quarters)
    back = {1: [[0, -1, w], [1, 0, 0]], 2: [[-1, 0, w], [0, -1, h]], 3: [[0, 1, 0], [-1, 0, h]]}[quarters]
    expected = np.array([*back, [0, 0, 1]], float)
    if mirrored:
        expected = np.array([[-1, 0, w], [0, 1, 0], [0, 0, 1.0]]) @ expected
    best = search(picture(seen), picture(mother), [1.0])[0]
    assert corners_apart(best.matrix, expected, seen.shape) < TO_A_PIXEL


def test_a_picture_beyond_the_border_is_found_by_what_is_inside() -> None:
    whole = blobs((130, 120))
    best = search(picture(whole), picture(whole[40:, :]), [1.0])[0]
    expected = np.array([[1, 0, 0], [0, 1, -40], [0, 0, 1.0]])
    assert corners_apart(best.matrix, expected, whole.shape) < TO_A_PIXEL


def test_refinement_reaches_the_place() -> None:
    mother = blobs((130, 120))
    near = np.eye(3)
    near[:2, :2] = turned(math.radians(3), 1.02, False)
    near[:2, 2] = [4, -2]
    moved = ascend(picture(mother), picture(mother), [Candidate(near, 0.0)], Freedom(growth=0.1))[0]
    assert corners_apart(moved.matrix, np.eye(3), (130, 120)) < 0.5
    assert moved.score > 0.99


def test_a_known_scale_holds_where_the_outline_does_not_tell() -> None:
    wedge = np.tril(np.ones((100, 100), np.float32))
    corner, mother = picture(wedge[:50, :50]), picture(wedge)
    start = Candidate(np.diag([0.94, 0.94, 1.0]), 0.0)
    free, kept = (
        abs(math.log(np.linalg.det(ascend(corner, mother, [start], Freedom(), known)[0].matrix[:2, :2])) / 2)
        for known in (None, 1.0)
    )
    assert kept < 0.02 < free
