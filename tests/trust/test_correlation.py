"""Correlations within captures, and intervals that hold where neighbours are alike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from iscale.trust.correlation import BLOCKS, blocks_of_tissue, correlation

SIDE = 16
LATTICE = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2).astype(float)
ONE = np.zeros(SIDE**2, np.int64)


def fields(rng: np.random.Generator, n: int, sigma: float) -> np.ndarray:
    """(spot, n) independent smooth fields of variance 1 over the ensemble of all such fields."""
    pad = int(4 * sigma) + 1
    white = rng.normal(size=(SIDE + 2 * pad, SIDE + 2 * pad, n))
    impulse = np.zeros((4 * pad + 1, 4 * pad + 1))
    impulse[2 * pad, 2 * pad] = 1
    smooth = gaussian_filter(white, (sigma, sigma, 0))[pad:-pad, pad:-pad]
    return (smooth / np.sqrt((gaussian_filter(impulse, sigma) ** 2).sum())).reshape(-1, n)


def test_of_one_capture_it_is_pearsons() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, SIDE**2, 5))
    b += a * np.arange(5)
    found = correlation(a, b, ONE, blocks_of_tissue(LATTICE, ONE))
    expected = [np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(5)]
    np.testing.assert_allclose(found.value, expected, rtol=1e-9)
    assert (found.low < found.value).all()
    assert (found.value < found.high).all()


def test_the_interval_holds_the_truth_where_neighbours_are_alike_and_the_usual_one_does_not() -> None:
    rng, genes, rho = np.random.default_rng(1), 400, 0.7
    signal, other = fields(rng, genes, 1.0), fields(rng, genes, 1.0)
    measured = np.sqrt(0.8) * signal + np.sqrt(0.2) * rng.normal(size=signal.shape)
    predicted = rho * signal + np.sqrt(1 - rho**2) * other
    truth = rho * np.sqrt(0.8)
    found = correlation(measured, predicted, ONE, blocks_of_tissue(LATTICE, ONE))
    assert 0.88 <= ((found.low < truth) & (truth < found.high)).mean() <= 0.98
    usual = np.abs(np.arctanh(found.value) - np.arctanh(truth)) < 1.96 / np.sqrt(SIDE**2 - 3)
    assert usual.mean() < 0.8


def test_what_moves_all_spots_of_a_capture_does_not_count() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, SIDE**2, 3))
    group = (LATTICE[:, 0] > 5).astype(np.int64)
    block = blocks_of_tissue(LATTICE, group)
    plain = correlation(a, b, group, block)
    moved = correlation(a + 100 * group[:, None], 7 * b - 50 * group[:, None], group, block)
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(getattr(moved, name), getattr(plain, name), atol=1e-9)
    small, large = (np.corrcoef(a[group == k, 0], b[group == k, 0])[0, 1] for k in (1, 0))
    assert min(small, large) <= plain.value[0] <= max(small, large)


def test_values_that_never_vary() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, SIDE**2, 2))
    a[:, 0] = b[:, 1] = 0.1
    found = correlation(a, b, ONE, blocks_of_tissue(LATTICE, ONE))
    assert np.isnan(found.value[0])
    assert found.value[1] == 0


def test_a_gene_of_one_place_only_has_a_wide_interval() -> None:
    a = np.zeros((SIDE**2, 1))
    a[0] = 1
    found = correlation(a, a.copy(), ONE, blocks_of_tissue(LATTICE, ONE))
    assert found.value[0] == pytest.approx(1)
    assert found.low[0] < 0


def test_few_spots_have_no_score() -> None:
    xy, group = LATTICE[:20], np.repeat([0, 1], [15, 5])
    a, b = np.random.default_rng(4).normal(size=(2, 20, 1))
    block = blocks_of_tissue(xy, group)
    alone = correlation(a[:15], b[:15], group[:15], block[:15])
    np.testing.assert_allclose(correlation(a, b, group, block).value, alone.value)
    assert np.isnan(correlation(a[15:], b[15:], group[15:], block[15:]).value).all()


def test_blocks_are_compact_even_and_of_one_capture() -> None:
    group = (LATTICE[:, 1] > 9).astype(np.int64)
    block = blocks_of_tissue(LATTICE, group)
    sizes = np.bincount(block)
    assert len(sizes) == 2 * BLOCKS
    for k, size in enumerate(sizes):
        inside = block == k
        assert len(np.unique(group[inside])) == 1
        assert np.ptp(LATTICE[inside], axis=0).prod() <= 2.5 * size
