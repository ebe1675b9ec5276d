"""Stacking, choosing genes and merging spots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from iscale.captures.integrate import gene_variance, integrate, stack
from iscale.captures.spots import Capture, TrainingSpots
from iscale.errors import InputError


def capture(name: str, genes: str = "A B C D", shift: float = 0.0, seed: int = 0, radius_um: float = 10.0) -> Capture:
    """A 5 x 5 grid of spots at a pitch of 100 px whose first gene varies most."""
    names = tuple(genes.split())
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.geomspace(50, 1, len(names)), size=(25, len(names)))
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(5)), axis=-1).reshape(-1, 2) * 100.0 + 100 + shift
    return Capture(
        name,
        tuple(f"{name}{i}" for i in range(25)),
        names,
        sparse.csr_matrix(counts, dtype=np.float32),
        grid,
        radius_um,
    )


def run(*captures: Capture, n_genes: int = 2, extra: tuple[str, ...] = (), dist: float = 10.0) -> TrainingSpots:
    return integrate(
        captures, n_genes=n_genes, extra_genes=extra, dist_st_px=dist, analysis_shape_px=(600, 700), pixel_size_um=0.5
    )


def test_stacking_keeps_the_shared_genes_in_the_order_of_the_first() -> None:
    a, b = capture("a", "A B C D"), capture("b", "D E B A")
    stacked = stack([a, b])
    assert stacked.genes == ("A", "B", "D")
    np.testing.assert_array_equal(stacked.counts[25:].toarray(), b.counts[:, [3, 2, 0]].toarray())
    assert stacked.capture.tolist() == [0] * 25 + [1] * 25


def test_sparse_variance_is_the_variance() -> None:
    counts = np.random.default_rng(1).poisson([0.01, 1, 1e4], size=(500, 3)).astype(np.float32)
    np.testing.assert_allclose(
        gene_variance(sparse.csr_matrix(counts)), counts.astype(np.float64).var(axis=0), rtol=1e-12
    )


def test_genes_are_the_most_variable_and_then_the_named() -> None:
    assert run(capture("a"), n_genes=2, extra=("D", "A")).genes == ("A", "B", "D")
    assert run(capture("a"), n_genes=99).genes == ("A", "B", "C", "D")


def test_merged_spots_are_means_and_equal_the_published_scaled_means() -> None:
    a, b = capture("a", seed=1), capture("b", shift=4.0, seed=2)
    spots = run(a, b)
    assert spots.xy_px.shape == (25, 2)
    np.testing.assert_allclose(spots.xy_px, a.xy_px + 2)
    both = np.stack([a.counts[:, :2].toarray(), b.counts[:, :2].toarray()])
    np.testing.assert_allclose(spots.counts, both.mean(axis=0))
    np.testing.assert_allclose(spots.depth, (a.counts.sum(axis=1).A1 + b.counts.sum(axis=1).A1) / 2)
    assert set(spots.capture.tolist()) == {-1}

    low, high = both.min(axis=(0, 1)), both.max(axis=(0, 1))
    published = ((both - low) / (high - low)).mean(axis=0)
    np.testing.assert_allclose((spots.counts - low) / (high - low), published, rtol=1e-5)


def test_spots_of_different_radius_are_not_merged() -> None:
    spots = run(capture("a"), capture("b", shift=1.0, radius_um=20.0))
    assert len(spots.xy_px) == 50
    assert sorted(set(spots.radius_um.tolist())) == [10.0, 20.0]
    assert spots.capture.tolist() == [0] * 25 + [1] * 25


def test_spots_at_the_border_are_dropped_by_their_own_radius() -> None:
    spots = run(capture("a", shift=-85.0))  # the first row and column lie 15 px from the border, radius 20 px
    assert len(spots.xy_px) == 16
    assert spots.xy_px.min() == 115
    assert "9 dropped at the border" in spots.notices[0]


def test_too_few_spots() -> None:
    message = r"Only 15 training spots: 25 measured, 25 after merging within 10 px, 10 of these nearer to the border"
    moved = capture("a")
    moved = replace(moved, xy_px=moved.xy_px + np.array([180.0, 0.0]))
    with pytest.raises(InputError, match=message):
        integrate([moved], n_genes=2, dist_st_px=10, analysis_shape_px=(600, 500), pixel_size_um=0.5)


def test_no_shared_gene_is_explained() -> None:
    with pytest.raises(InputError, match=r"share no gene \(a has 1: ERBB2 \.\.\.; b has 1: CD3E"):
        stack([capture("a", "ERBB2"), capture("b", "CD3E")])
    with pytest.raises(InputError, match="Ensembl id"):
        stack([capture("a", "ERBB2"), capture("b", "ENSG00000141736")])
    with pytest.raises(InputError, match="capitals"):
        stack([capture("a", "ERBB2"), capture("b", "Erbb2")])


def test_named_genes_that_cannot_be_imputed() -> None:
    a, b = capture("a", "ERBB2 B CD3E"), capture("b", "B CD3E KRT8")
    with pytest.raises(InputError, match=r"'ERRB2'.*none of the 2 captures.\n.*ERBB2"):
        run(a, b, extra=("ERRB2",))
    with pytest.raises(InputError, match="'ERBB2' that you named was not measured in b"):
        run(a, b, extra=("ERBB2",))
    flat = replace(a, counts=sparse.csr_matrix(a.counts.toarray() * [1, 1, 0]).astype(np.float32))
    assert run(flat, n_genes=3).genes == ("ERBB2", "B")
    with pytest.raises(InputError, match="'CD3E' that you named has the same count in all 25 spots"):
        run(flat, extra=("CD3E",))
