from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iscale.arrays import halve
from iscale.geometry import Region, SlideGrid
from iscale.slide.ingest import choose_level, level_factor, resample, source_region

FACTORS = [(0.688, 0.75), (0.25, 0.5), (0.499, 0.5), (0.5, 0.5), (0.65, 0.5), (0.12, 0.5)]


def noise(h: int, w: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (h, w, 3), dtype=np.uint8)


def run(level: np.ndarray, grid: SlideGrid, out: Region) -> np.ndarray:
    shape = level.shape[:2]
    window = source_region(grid, shape, out)
    if window is None:
        return np.full((*out.shape, 3), 255, np.uint8)
    return resample(level[window.slices], window, out, grid, shape)


def whole(grid: SlideGrid) -> Region:
    return Region(0, grid.shape_px[0], 0, grid.shape_px[1])


@pytest.mark.parametrize(("raw", "target"), FACTORS)
def test_a_pixel_does_not_depend_on_the_region_it_is_computed_in(raw: float, target: float) -> None:
    image = noise(1201, 937)
    grid = SlideGrid(image.shape[:2], raw, target)
    full = run(image, grid, whole(grid))
    h, w = grid.shape_px
    for side in (256, 333, 512):
        for region in whole(grid).tiles(side):
            assert np.array_equal(run(image, grid, region), full[region.slices]), region
    odd = Region(h // 3, h // 3 + 77, w // 5, w // 5 + 41)
    assert np.array_equal(run(image, grid, odd), full[odd.slices])


@pytest.mark.parametrize(("raw", "target"), FACTORS)
def test_no_seam_between_lattice_tiles(raw: float, target: float) -> None:
    """Against one resize of the whole image in one piece: float32 positions differ a little."""
    image = noise(800, 1100)
    grid = SlideGrid(image.shape[:2], raw, target)
    h, w = grid.content_shape_px
    h, w = h - 1, w - 1  # the last pixel reaches beyond the image
    across, down = w / grid.scale, h / grid.scale
    narrow = Image.fromarray(image).resize((w, 800), Image.Resampling.LANCZOS, box=(0, 0, across, 800))
    one = np.asarray(narrow.resize((w, h), Image.Resampling.LANCZOS, box=(0, 0, w, down))).astype(int)
    inner = (slice(0, h - 8), slice(0, w - 8))
    difference = np.abs(run(image, grid, whole(grid))[:h, :w].astype(int) - one)[inner]
    assert difference.max() <= 2
    assert difference.mean() < 0.01


def test_a_constant_stays_constant_and_padding_is_white() -> None:
    for raw, target in FACTORS:
        image = np.full((700, 500, 3), (201, 17, 99), np.uint8)
        grid = SlideGrid(image.shape[:2], raw, target)
        result = run(image, grid, whole(grid))
        h, w = grid.content_shape_px
        assert (result[:h, :w] == (201, 17, 99)).all()
        assert (result[h:] == 255).all()
        assert (result[:, w:] == 255).all()


@pytest.mark.parametrize(("raw", "target"), [(0.25, 0.5), (0.25, 0.75), (0.12, 0.5)])
def test_what_is_finer_than_the_target_is_removed_and_what_is_coarser_kept(raw: float, target: float) -> None:
    def contrast(period_px: float) -> float:
        wave = 128 + 100 * np.sin(2 * np.pi * np.arange(1536) / period_px)
        image = np.broadcast_to(wave[None, :, None], (600, 1536, 3)).astype(np.uint8)
        grid = SlideGrid(image.shape[:2], raw, target)
        content = run(image, grid, whole(grid))[50:130, 50:300].astype(float)
        return float(content.std() / (100 / np.sqrt(2)))

    nyquist_period = 2 * target / raw
    assert contrast(nyquist_period / 1.6) < 0.05
    assert contrast(nyquist_period * 2.5) > 0.93


def test_positions_scale_with_the_image() -> None:
    """A dot at raw (x, y) is found at (x, y) * scale: no shift of half a pixel."""
    for raw, target in FACTORS:
        image = np.full((900, 900, 3), 255, np.uint8)
        image[600:612, 301:313] = 0
        grid = SlideGrid(image.shape[:2], raw, target)
        dark = 255.0 - run(image, grid, whole(grid))[: grid.content_shape_px[0], : grid.content_shape_px[1], 0]
        y, x = (np.indices(dark.shape) * dark).sum((1, 2)) / dark.sum() + 0.5
        assert (y / grid.scale, x / grid.scale) == pytest.approx((606, 307), abs=0.1)


def test_from_a_lower_level_as_from_full_resolution() -> None:
    y, x = np.mgrid[:1203, :1407]
    wave = 128 + 60 * np.sin(x / 40) + 60 * np.cos(y / 55)
    image = np.repeat(wave[..., None], 3, 2).astype(np.uint8)
    grid = SlideGrid(image.shape[:2], 0.25, 0.6)
    below = halve(image)[: 1203 // 2, : 1407 // 2]
    assert choose_level([image.shape[:2], below.shape[:2]], grid) == 1
    direct, by_level = run(image, grid, whole(grid)).astype(int), run(below, grid, whole(grid)).astype(int)
    content = (slice(0, grid.content_shape_px[0] - 4), slice(0, grid.content_shape_px[1] - 4))
    assert np.abs(direct - by_level)[content].max() <= 3


def test_scale_one_is_a_copy() -> None:
    image = noise(300, 400)
    grid = SlideGrid((300, 400), 0.5, 0.5)
    assert np.array_equal(run(image, grid, whole(grid))[:300, :400], image)
    grid = SlideGrid((1200, 1600), 0.125, 0.5)
    assert np.array_equal(run(image, grid, whole(grid))[:300, :400], image)


def test_the_padding_needs_no_source() -> None:
    grid = SlideGrid((100, 300), 0.5, 0.5)
    assert grid.shape_px == (256, 512)
    assert source_region(grid, (100, 300), Region(128, 256, 0, 256)) is None


@pytest.mark.parametrize(
    ("um", "level"), [(0.2, 0), (0.25, 0), (0.49, 0), (0.5, 1), (0.99, 1), (1.0, 2), (3.9, 2), (4.0, 3), (40.0, 3)]
)
def test_the_level_chosen_is_the_coarsest_that_is_fine_enough(um: float, level: int) -> None:
    levels = [(40001, 30003), (20000, 15001), (10000, 7500), (2500, 1875)]
    assert choose_level(levels, SlideGrid(levels[0], 0.25, um)) == level


@given(st.integers(40, 5000), st.integers(40, 5000), st.sampled_from([2, 3, 4, 8, 16]), st.booleans())
def test_a_level_smaller_by_a_whole_number_is_known_however_it_was_rounded(h: int, w: int, k: int, up: bool) -> None:
    shape = (-(-h // k), -(-w // k)) if up else (h // k, w // k)
    if min(shape) > 2 * k:
        assert level_factor((h, w), shape) == k


@settings(max_examples=30)
@given(
    st.sampled_from(FACTORS),
    st.integers(0, 500),
    st.integers(1, 300),
    st.integers(0, 500),
    st.integers(1, 300),
)
def test_the_window_lies_in_the_level_and_holds_what_is_needed(
    factor: tuple[float, float], y: int, dy: int, x: int, dx: int
) -> None:
    grid = SlideGrid((777, 901), *factor)
    out = Region(y, y + dy, x, x + dx)
    window = source_region(grid, (777, 901), out)
    if window is not None:
        assert window.y1 <= 777
        assert window.x1 <= 901
        resample(np.zeros((*window.shape, 3), np.uint8), window, out, grid, (777, 901))
