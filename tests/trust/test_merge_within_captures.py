"""Spots merged within captures only."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from iscale.captures.integrate import integrate
from iscale.captures.spots import Capture
from iscale.trust.folds import members_of, merge_within_captures

SHAPE = (1000, 1000)


def capture(name: str, xy: np.ndarray, depth: float, genes: tuple[str, ...], seed: int) -> Capture:
    counts = np.random.default_rng(seed).poisson(depth, (len(xy), len(genes)))
    return Capture(
        name=name,
        spot_ids=tuple(f"s{i}" for i in range(len(xy))),
        genes=genes,
        counts=sparse.csr_matrix(counts, dtype=np.float32),
        xy_px=xy,
        radius_um=20.0,
    )


@pytest.fixture
def captures() -> tuple[Capture, Capture]:
    """Two captures, one as far from the other as spots are merged; in the first, two spots of each pair are as near."""
    lattice = np.stack(np.meshgrid(np.arange(100, 900, 100.0), np.arange(100, 900, 100.0)), axis=-1).reshape(-1, 2)
    pairs = np.concatenate([lattice, lattice[:20] + np.array([4, 0])])
    return (
        capture("A", pairs, 20, ("G0", "G1", "G2", "only A"), 0),
        capture("B", lattice + np.array([0, 8]), 5, ("G2", "G1", "G0"), 1),
    )


def merged(captures, dist: float = 10.0):
    frame = {"dist_st_px": dist, "analysis_shape_px": SHAPE, "pixel_size_um": 0.5}
    spots = integrate(captures, n_genes=3, **frame)
    return spots, merge_within_captures(captures, spots, **frame)


def test_spots_of_two_captures_stay_apart_and_those_of_one_are_merged(captures) -> None:
    spots, apart = merged(captures)
    assert (spots.capture == -1).any()
    assert np.bincount(apart.capture).tolist() == [64, 64]
    assert np.bincount(apart.members).tolist() == [0, 108, 20]
    assert apart.genes == spots.genes


def test_counts_are_means_on_the_scale_of_the_run(captures) -> None:
    spots, apart = merged(captures)
    assert spots.capture_scale[1] / spots.capture_scale[0] == pytest.approx(4, rel=0.1)
    first, scale = captures[0].counts.toarray(), spots.capture_scale[0]
    k = int(np.flatnonzero(apart.members == 2)[0])
    expected = scale * (first[k] + first[64 + k]) / 2
    for j, gene in enumerate(apart.genes):
        assert apart.counts[k, j] == pytest.approx(expected[captures[0].genes.index(gene)], rel=1e-6)
    assert apart.depth[k] == pytest.approx(expected[:3].sum(), rel=1e-6)
    np.testing.assert_allclose(apart.xy_px[k], captures[0].xy_px[k] + [2, 0])


def test_where_no_two_captures_meet_they_are_the_spots_of_the_run(captures) -> None:
    spots, apart = merged(captures, dist=5.0)
    order = np.lexsort((*spots.xy_px.T, spots.capture))
    own = np.lexsort((*apart.xy_px.T, apart.capture))
    for name in ("counts", "depth", "xy_px", "radius_um", "capture"):
        np.testing.assert_allclose(getattr(apart, name)[own], getattr(spots, name)[order], rtol=1e-6)


def test_of_other_spots_it_is_not_known_what_was_merged(captures) -> None:
    spots, apart = merged(captures)
    assert (members_of(spots) == 1).all()
    assert members_of(apart) is apart.members
