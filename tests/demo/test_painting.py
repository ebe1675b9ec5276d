"""The synthetic picture: a function of position alone, without seams, in which region types can be told apart."""

from __future__ import annotations

import numpy as np
import pytest

from iscale.demo.painting import GLASS, paint
from iscale.demo.tissue import REGION_TYPES, SyntheticTissue, lattice_hash, nearest_centres, smooth
from iscale.geometry import Region

TISSUE = SyntheticTissue((3000, 4000), seed=1)


def test_hashes_are_uniform_and_differ_by_seed_and_place() -> None:
    values = lattice_hash(np.arange(-200, 300), np.arange(-100, 400), 3)
    assert values.min() >= 0
    assert values.max() < 1
    np.testing.assert_allclose(np.histogram(values, 10, (0, 1))[0] / values.size, 0.1, atol=0.003)
    for other in (lattice_hash(np.arange(-200, 300), np.arange(-100, 400), 4), np.roll(values, 1, 0), values[:, ::-1]):
        assert abs(np.corrcoef(values.ravel(), other.ravel())[0, 1]) < 0.01


def test_fields_do_not_depend_on_the_window_asked_for() -> None:
    y, x = np.arange(300) * 0.5, np.arange(-100, 260) * 0.5
    rows, columns = slice(37, 91), slice(101, 222)
    np.testing.assert_allclose(smooth(y, x, 9, 5)[rows, columns], smooth(y[rows], x[columns], 9, 5), atol=1e-6)
    whole, part = nearest_centres(y, x, 30, 0.2, 5), nearest_centres(y[rows], x[columns], 30, 0.2, 5)
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_array_equal(a[rows, columns], b)


@pytest.mark.parametrize("side", [512, 200, 97])
def test_tiles_of_any_size_make_the_same_picture(side: int) -> None:
    region = Region(700, 1212, 900, 1412)
    whole = paint(TISSUE, region)
    for tile in region.tiles(side):
        difference = paint(TISSUE, tile).astype(int) - whole[tile.within(region)]
        assert np.abs(difference).max() <= 1  # rounding of the last bit of float32


def test_another_seed_is_another_tissue() -> None:
    region = Region(800, 1000, 800, 1000)
    a, b = paint(TISSUE, region), paint(SyntheticTissue((3000, 4000), seed=2), region)
    assert np.abs(a.astype(int) - b).mean() > 5


@pytest.mark.parametrize("fraction", [0.2, 0.45, 0.6])
def test_tissue_covers_the_wanted_share(fraction: float) -> None:
    tissue = SyntheticTissue((3000, 4000), seed=3, tissue_fraction=fraction)
    y, x = np.arange(0, 1500, 7.0), np.arange(0, 2000, 7.0)
    assert tissue.share(y, x).mean() == pytest.approx(fraction, abs=0.02)


def test_glass_is_light_and_tissue_is_pink_to_purple() -> None:
    glass = paint(TISSUE, Region(0, 60, 0, 60))
    np.testing.assert_allclose(glass.mean(axis=(0, 1)), GLASS, atol=6)
    overview = np.concatenate([paint(TISSUE, Region(y, y + 16, 0, 4000)) for y in range(300, 2700, 480)])
    stained = overview[overview.min(axis=-1) < 200].astype(float)
    assert len(stained) > 0.2 * overview[..., 0].size
    red, green, blue = stained.mean(axis=0)
    assert red > green + 25
    assert blue > green + 25


def described_superpixels(tissue: SyntheticTissue, shares: np.ndarray, n: int) -> np.ndarray:
    """Mean and spread of the colours of ``n`` superpixels where ``shares`` says that they are of one kind."""
    places = np.argwhere(shares > 0.95)
    chosen = places[np.random.default_rng(0).choice(len(places), n, replace=False)] * 16
    tiles = np.stack([paint(tissue, Region(y, y + 16, x, x + 16)) for y, x in chosen.tolist()]).astype(float)
    return np.concatenate([tiles.mean(axis=(1, 2)), tiles.std(axis=(1, 2))], axis=-1)


def test_region_types_cover_the_tissue_and_differ_in_colour_and_texture() -> None:
    tissue = SyntheticTissue((4096, 4096))
    centres = (np.arange(256) + 0.5) * 8.0
    fields = tissue.fields(centres, centres)
    np.testing.assert_allclose(fields.regions.sum(axis=0), 1, atol=1e-5)
    share = (fields.regions * fields.tissue).sum(axis=(1, 2)) / fields.tissue.sum()
    assert (share > 0.05).all(), dict(zip(REGION_TYPES, share, strict=True))
    groups = np.stack([described_superpixels(tissue, kind * fields.tissue, 60) for kind in fields.regions])
    groups /= groups.std(axis=(0, 1))
    means = groups.mean(axis=1)
    nearest = np.linalg.norm(groups[:, :, None] - means, axis=-1).argmin(axis=-1)
    right = (nearest == np.arange(len(REGION_TYPES))[:, None]).mean(axis=1)
    assert right.min() > 1.5 / len(REGION_TYPES)
    assert 0.6 < right.mean() < 0.97  # to be told apart, but not by the colour of one superpixel
