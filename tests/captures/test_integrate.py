"""Stacking, choosing genes and merging spots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from iscale.captures.integrate import capture_scales, integrate
from iscale.captures.read import read_aligned_capture
from iscale.captures.spots import Capture, TrainingSpots
from iscale.captures.stacked import Moments, excess_variance, gene_variance, scaled_variance, stack
from iscale.captures.stage import read_training, write_training
from iscale.demo.her2st import PIXEL_SIZE_UM, lay_out_her2st
from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.project.files import find_project
from iscale.store.run_store import RunStore


def capture(name: str, genes: str = "A B C D", shift: float = 0.0, seed: int = 0, radius_um: float = 10.0) -> Capture:
    """A 5 x 5 grid of spots at a pitch of 100 px whose first gene varies most."""
    names = tuple(genes.split())
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.geomspace(50, 1, len(names)), size=(25, len(names)))
    at = np.arange(5, dtype=np.float64)
    grid = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2) * 100.0 + 100 + shift
    return Capture(
        name,
        tuple(f"{name}{i}" for i in range(25)),
        names,
        sparse.csr_matrix(counts, dtype=np.float32),
        grid,
        radius_um,
    )


def run(
    *captures: Capture, n_genes: int = 2, extra: tuple[str, ...] = (), dist: float = 10.0, normalise: bool = True
) -> TrainingSpots:
    return integrate(
        captures,
        n_genes=n_genes,
        extra_genes=extra,
        dist_st_px=dist,
        analysis_shape_px=(600, 700),
        pixel_size_um=0.5,
        normalise=normalise,
    )


def thinned(capture: Capture, share: float, seed: int = 0) -> Capture:
    """The capture as it would be, had it been sequenced less."""
    counts = capture.counts.copy()
    counts.data = np.random.default_rng(seed).binomial(counts.data.astype(int), share).astype(np.float32)
    return replace(capture, counts=counts)


def test_stacking_keeps_the_shared_genes_in_the_order_of_the_first() -> None:
    a, b = capture("a", "A B C D"), capture("b", "D E B A")
    stacked = stack([a, b])
    assert stacked.genes == ("A", "B", "D")
    ((spots, counts),) = stacked.blocks(1)
    assert stacked.rows_of(1) == slice(25, 50)
    assert spots == slice(0, 25)
    np.testing.assert_array_equal(counts.toarray(), b.counts[:, [3, 2, 0]].toarray())
    np.testing.assert_array_equal(stacked.depth[25:], counts.sum(axis=1).A1)
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


def test_captures_of_like_depth_are_left_as_measured() -> None:
    a, b = capture("a", seed=1), thinned(capture("b", shift=40.0, seed=2), 0.75)
    spots, published = run(a, b), run(a, b, normalise=False)
    assert spots.capture_scale == published.capture_scale == (1.0, 1.0)
    assert spots.genes == published.genes
    np.testing.assert_array_equal(spots.counts, published.counts)
    assert not any("depth" in notice for notice in spots.notices)


def test_a_shallow_capture_is_brought_to_the_depth_of_the_others() -> None:
    a, b = capture("a", seed=1), thinned(capture("b", shift=4.0, seed=2), 0.2)
    spots = run(a, b)
    down, up = spots.capture_scale
    assert up / down == pytest.approx(5, rel=0.1)
    expected = (a.counts.sum(axis=1).A1 * down + b.counts.sum(axis=1).A1 * up) / 2
    np.testing.assert_allclose(spots.depth, expected, rtol=1e-5)
    np.testing.assert_allclose(
        spots.counts, (a.counts[:, :2].toarray() * down + b.counts[:, :2].toarray() * up) / 2, rtol=1e-5
    )
    total = float(a.counts.sum() + b.counts.sum())
    assert 2 * float(spots.depth.sum()) == pytest.approx(total, rel=0.05)
    assert spots.notices[1].startswith(
        f"The captures differ in depth: counts were multiplied, those of a by {down:.3g} ("
    )
    assert run(a, b, normalise=False).capture_scale == (1.0, 1.0)


def test_depth_is_judged_per_area_and_not_of_empty_spots() -> None:
    depth = np.repeat([100.0, 400.0, 0.0], [10, 10, 15])
    of = np.repeat([0, 1], [10, 25])
    same_size = capture_scales(depth, of, np.full(35, 20.0), 2)
    np.testing.assert_allclose(same_size[0] / same_size[1], 4)
    np.testing.assert_allclose(same_size[of] @ depth, depth.sum())
    assert capture_scales(depth, of, np.where(of == 0, 20.0, 40.0), 2).tolist() == [1, 1]
    assert capture_scales(depth * (of == 0), of, np.full(35, 20.0), 2).tolist() == [1, 1]


def test_variance_without_the_excess_is_that_of_counts_at_the_common_depth() -> None:
    """Of the same tissue, measured to a fifth and to the whole depth; fifths times 5 vary more by their noise."""
    rng = np.random.default_rng(0)
    level = rng.gamma(2.0, np.array([0.2, 2.0, 20.0]), size=(20000, 3))
    deep, shallow = rng.poisson(level), rng.poisson(level / 5)
    moments, scale = [Moments.of([sparse.csr_matrix(shallow, dtype=np.float32)], 3)], np.array([5.0])
    scaled = scaled_variance(moments, scale)
    assert (scaled > 1.15 * deep.var(axis=0)).all()
    np.testing.assert_allclose(scaled - excess_variance(moments, scale), deep.var(axis=0), rtol=0.05)


def test_variance_of_scaled_captures_is_that_of_their_scaled_counts() -> None:
    rng = np.random.default_rng(2)
    tables, scale = [rng.poisson([0.01, 1, 1e4], size=(n, 3)) for n in (300, 500)], np.array([1.7, 0.6])
    moments = [Moments.of([sparse.csr_matrix(table, dtype=np.float32)], 3) for table in tables]
    every = np.concatenate([table * factor for table, factor in zip(tables, scale, strict=True)])
    np.testing.assert_allclose(scaled_variance(moments, scale), every.var(axis=0), rtol=1e-9)
    excess = np.concatenate([table * s * (s - 1) for table, s in zip(tables, scale, strict=True)]).mean(axis=0)
    np.testing.assert_allclose(excess_variance(moments, scale), excess)


def test_scales_and_agreement_are_kept_in_the_store(tmp_path: Path) -> None:
    spots = run(capture("a", seed=1), thinned(capture("b", shift=4.0, seed=2), 0.2))
    assert spots.agreement[0]["captures"] == ["a", "b"]
    store = RunStore(tmp_path / "out")
    store.create()
    grid = SlideGrid((600, 700), 0.5, 0.5)
    write_training(store, spots, grid)
    found = read_training(store, grid)
    assert found.capture_scale == spots.capture_scale
    assert found.agreement == spots.agreement


@pytest.mark.real
def test_a_deep_and_a_shallow_capture_rank_genes_as_two_equal_ones(data_dir: Path, tmp_path: Path) -> None:
    """Her2st's C3, sequenced to a fifth, beside C5: its genes count as if it were whole, and its spots as well."""
    shape = (9100, 8600)
    project = find_project(lay_out_her2st(data_dir / "her2st", tmp_path / "case").project)
    a, b = (
        read_aligned_capture(files, radius_um=50, pixel_size_um=PIXEL_SIZE_UM, analysis_shape_px=shape)
        for files in project.captures
    )

    def integrated(*captures: Capture, normalise: bool) -> TrainingSpots:
        return integrate(
            captures,
            n_genes=1000,
            dist_st_px=100,
            analysis_shape_px=shape,
            pixel_size_um=PIXEL_SIZE_UM,
            normalise=normalise,
        )

    whole = integrated(a, b, normalise=False)
    assert integrated(a, b, normalise=True).genes == whole.genes
    for shallow in ((thinned(a, 0.2), b), (a, thinned(b, 0.2))):
        equal, raw = integrated(*shallow, normalise=True), integrated(*shallow, normalise=False)
        found = {n: [len({*s.genes[:n]} & {*whole.genes[:n]}) / n for s in (equal, raw)] for n in (100, 1000)}
        assert found[100][0] >= 0.97
        assert found[100][0] > found[100][1]
        assert found[1000][0] > found[1000][1]
        # In both captures alike a spot has the depth, and the genes their level, that it had before: up to one factor.
        for spots, alike in ((equal, True), (raw, False)):
            ratio = [np.median(spots.depth[spots.capture == i] / whole.depth[whole.capture == i]) for i in (0, 1)]
            assert bool(max(ratio) < 1.1 * min(ratio)) is alike
        common = [g for g in whole.genes[:100] if g in equal.genes]
        at, then = ([s.genes.index(g) for g in common] for s in (equal, whole))
        for i in (0, 1):
            now = equal.counts[equal.capture == i][:, at].mean(axis=0)
            before = whole.counts[whole.capture == i][:, then].mean(axis=0)
            assert np.corrcoef(np.log1p(now), np.log1p(before))[0, 1] > 0.99
