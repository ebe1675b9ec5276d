"""Context: every patch from the middle of its window, every cell the mean over the patches that cover it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from toy import ToyContext, ToyEncoder

from iscale.features.context import mean_over_covering, whole_slide, windowed
from iscale.features.patch_lattice import PatchLattice, Vectors
from iscale.geometry import Region

BLANK = np.full(3, 7.0, np.float32)


def slide_vectors(lattice: PatchLattice) -> NDArray[np.float32]:
    vectors = np.random.default_rng(0).normal(size=(*lattice.places, 3)).astype(np.float32)
    vectors[: lattice.places[0] // 3, : lattice.places[1] // 2] = np.nan
    return vectors


def reader(vectors: NDArray[np.float32], box: Region) -> Vectors:
    padded = np.full((*box.shape, 3), np.nan, np.float32)
    part = vectors[box.slices]
    padded[: part.shape[0], : part.shape[1]] = part
    return padded


def by_definition(vectors: NDArray[np.float32], lattice: PatchLattice, i: int, j: int) -> list[float]:
    """The toy context of one patch: of its shift, the 16 x 16 window in whose middle 8 x 8 it lies."""
    n = lattice.shifts
    patch = np.array([i // n, j // n])
    start = patch // 8 * 8 - 4
    window = np.empty((16, 16, 3), np.float32)
    window[...] = BLANK
    for y in range(16):
        for x in range(16):
            at = (start + np.array([y, x])) * n + np.array([i % n, j % n])
            inside = (at >= 0).all() and at[0] < lattice.places[0] and at[1] < lattice.places[1]
            if inside and np.isfinite(vectors[at[0], at[1], 0]):
                window[y, x] = vectors[at[0], at[1]]
    y, x = patch - start
    return [float(vectors[i, j, 0]), float(window.mean()), float(y), float(x)]


@pytest.mark.parametrize("step", [4, 8, 16])
def test_a_patch_takes_the_window_in_whose_middle_it_lies(step: int) -> None:
    lattice = PatchLattice((16 * 30, 16 * 11), 16, step)
    vectors = slide_vectors(lattice)
    everywhere = Region(0, lattice.places[0], 0, lattice.places[1])
    found = windowed(ToyContext(16), lattice, everywhere, lambda box: reader(vectors, box), BLANK)
    assert (np.isnan(found[..., 0]) == np.isnan(vectors[..., 0])).all()
    rng = np.random.default_rng(1)
    places = np.argwhere(np.isfinite(vectors[..., 0]))
    for i, j in rng.choice(places, 40, replace=False):
        np.testing.assert_allclose(found[i, j], by_definition(vectors, lattice, int(i), int(j)), rtol=1e-5, atol=1e-6)
        assert (found[i, j, 2:] >= 4).all()
        assert (found[i, j, 2:] < 12).all()


def test_windows_do_not_depend_on_what_is_asked_for() -> None:
    lattice = PatchLattice((16 * 30, 16 * 21), 16, 4)
    vectors = slide_vectors(lattice)

    def ask(places: Region) -> Vectors:
        return windowed(ToyContext(16), lattice, places, lambda box: reader(vectors, box), BLANK)

    whole = ask(Region(0, lattice.places[0], 0, lattice.places[1]))
    for part in (Region(0, 5, 0, 5), Region(29, 68, 61, 81), Region(100, 117, 3, 4)):
        np.testing.assert_array_equal(ask(part), whole[part.slices])


def test_a_cell_is_the_mean_of_the_patches_that_cover_it() -> None:
    lattice = PatchLattice((64, 48), 16, 4)
    found = np.random.default_rng(0).normal(size=(*lattice.places, 2)).astype(np.float32)
    found[3, 4] = np.nan
    cells = Region(0, 16, 0, 12)
    mean = mean_over_covering(found, Region(0, 13, 0, 9), cells, 4)
    for i in range(16):
        for j in range(12):
            covering = [
                found[y, x]
                for y in range(max(0, i - 3), min(13, i + 1))
                for x in range(max(0, j - 3), min(9, j + 1))
                if (y, x) != (3, 4)
            ]
            np.testing.assert_allclose(mean[i, j], np.mean(covering, axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 16), (16, 64), (48, 80), (16 * 18, 32)])
def test_a_slide_seen_whole_has_context_everywhere(shape: tuple[int, int]) -> None:
    encoder = ToyEncoder(window=None)
    lattice = PatchLattice(shape, 16, 4)
    image = np.random.default_rng(0).integers(0, 255, (3, shape[0] * 16, shape[1] * 16), np.uint8)
    places = [(i, j) for i in range(lattice.places[0]) for j in range(lattice.places[1])]
    vectors = np.zeros((*lattice.places, 3), np.float32)
    for i, j in places:
        vectors[i, j] = image[:, i * 64 : i * 64 + 256, j * 64 : j * 64 + 256].mean(axis=(1, 2))
    found = whole_slide(encoder, encoder.context, lattice, vectors, lambda box: image[:, *box.slices])
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[..., 0], vectors[..., 0])
    patches = [max(1, n // 16 - 1) for n in shape]
    for i, j in places[:: max(1, len(places) // 8)]:
        # The published shift in which the patch lies, edge-padded as published; the last row and column: 256 px.
        at = [
            4 if count > 0 and place == last else place % 4
            for place, last, count in zip(
                (i, j), (n - 1 for n in lattice.places), (n // 16 - 1 for n in shape), strict=True
            )
        ]
        top, left = (64 * a for a in at)
        part = image[:, top : top + 256 * patches[0], left : left + 256 * patches[1]]
        padding = [(0, 0), *((0, -n % 4096) for n in part.shape[1:])]
        mean = np.pad(part, padding, mode="edge").astype(np.float64).mean()
        assert found[i, j, 1] == pytest.approx(mean, rel=1e-4)
        assert tuple(found[i, j, 2:]) == ((i - at[0]) // 4, (j - at[1]) // 4)
