from __future__ import annotations

import dataclasses

import numpy as np
import psutil
import pytest
import torch

from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.engine.progress import listening
from iscale.geometry import Region
from iscale.model.additive import spread_out
from iscale.model.data import training_data
from iscale.model.default import PENALTIES, Discs, Factors, fit_ridge, train
from iscale.model.discs import disc_rows
from iscale.model.ensemble import load_ensemble
from iscale.model.fit import fit, predict_spots
from iscale.model.sizes import FACTORS, SIZES


@pytest.fixture(scope="module")
def result(problem):
    return fit(problem.spots, problem.discs, **problem.frame, recipe="default", seed=0)


@pytest.fixture(scope="module")
def slide(problem):
    """Features and places of all superpixels of the problem's slide."""
    i, j = np.divmod(np.arange(len(problem.features)), 40)
    xy_um = np.stack([(j + 0.5) * 12.0, (i + 0.5) * 12.0], axis=1)
    return torch.from_numpy(problem.features), torch.from_numpy(xy_um.astype(np.float32))


def test_superpixels_are_told_from_sums_over_discs(problem, result, slide) -> None:
    hidden = result.ensemble.hidden(*slide)
    predicted, spread = result.ensemble.expression(hidden, slice(None))
    for gene in range(4):
        truth = problem.truth[:, gene]
        assert np.corrcoef(predicted[gene], truth)[0, 1] > 0.9
        assert predicted[gene].mean() == pytest.approx(truth.mean(), rel=0.1)
    assert (predicted >= 0).all()
    assert (spread > 0).any()
    depth = result.ensemble.depth(hidden)
    assert depth.mean() == pytest.approx(problem.truth.sum(axis=1).mean(), rel=0.1)


def test_held_out_spots_are_predicted(result) -> None:
    assert result.held_out.sum() == 16
    assert np.median(result.held_out_scores["counts"]) > 0.8


def test_sums_over_discs_are_expected_counts(problem, result) -> None:
    data = training_data(problem.spots, problem.discs, **problem.frame, seed=0, device=torch.device("cpu"))
    counts, depth = predict_spots(result.ensemble, data, np.flatnonzero(data.usable))
    np.testing.assert_allclose(counts.sum(axis=0), problem.spots.counts[data.usable].sum(axis=0), rtol=1e-4)
    assert depth.sum() == pytest.approx(problem.spots.depth[data.usable].sum(), rel=1e-4)


def test_history_goes_along_the_penalties_and_max_epochs_cuts_it(problem, result) -> None:
    assert [line["epoch"] for line in result.history] == list(range(1, len(PENALTIES) + 1))
    assert all(np.isfinite(list(line.values())).all() for line in result.history)
    seen: list[dict[str, float]] = []
    short = fit(problem.spots, problem.discs, **problem.frame, max_epochs=2, on_epoch=seen.append)
    assert short.history == seen
    assert len(seen) == 2


def test_same_seed_same_bytes(problem, result, tmp_path) -> None:
    again = fit(problem.spots, problem.discs, **problem.frame, recipe="default", seed=0)
    other = fit(problem.spots, problem.discs, **problem.frame, recipe="default", seed=1)
    for name, of in (("a", result), ("b", again), ("c", other)):
        of.ensemble.save(tmp_path / name)
    a, b, c = ((tmp_path / name / "ensemble.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_loaded_predicts_the_same(result, slide, tmp_path) -> None:
    result.ensemble.save(tmp_path)
    loaded = load_ensemble(tmp_path)
    for a, b in zip(predictions(result.ensemble, slide), predictions(loaded, slide), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def predictions(ensemble, slide, rows=slice(None), step: int = 4):
    features, xy_um = slide
    hidden = ensemble.hidden(features[rows], xy_um[rows])
    parts = [ensemble.expression(hidden, slice(a, a + step)) for a in range(0, 4, step)]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), ensemble.depth(hidden)


@pytest.mark.parametrize("tile", [17, 130, 1100])
def test_values_do_not_depend_on_the_tile(result, slide, tile) -> None:
    whole = predictions(result.ensemble, slide)
    rows = range(0, len(slide[0]), tile)
    pieces = [predictions(result.ensemble, slide, slice(a, a + tile), step=3) for a in rows]
    for k, values in enumerate(whole):
        cut = torch.cat([piece[k] for piece in pieces], dim=-1)
        torch.testing.assert_close(cut, values, rtol=1e-5, atol=1e-6 * float(values.abs().max()))


def test_captures_of_different_depth_do_not_hide_the_tissue(problem, result, slide) -> None:
    """A capture's constant is left out of predictions: a capture twice as deep does not brighten its place."""
    deep = problem.spots.capture == 1
    counts, depth = problem.spots.counts.copy(), problem.spots.depth.copy()
    counts[deep] *= 3
    depth[deep] *= 3
    spots = dataclasses.replace(problem.spots, counts=counts, depth=depth)
    skewed = fit(spots, problem.discs, **problem.frame).ensemble
    truth = problem.truth
    predicted = predictions(skewed, slide)[0]
    for gene in range(4):
        assert np.corrcoef(predicted[gene], truth[:, gene])[0, 1] > 0.85


def test_a_gene_that_is_never_counted_stays_absent(problem, slide) -> None:
    counts = problem.spots.counts.copy()
    counts[:, 2] = 0
    spots = dataclasses.replace(problem.spots, counts=counts)
    predicted = predictions(fit(spots, problem.discs, **problem.frame).ensemble, slide)[0]
    assert float(predicted[2].abs().max()) < 1e-6
    assert torch.isfinite(predicted).all()


def test_spots_without_counts_or_tissue_do_no_harm(problem, slide) -> None:
    counts, depth = problem.spots.counts.copy(), problem.spots.depth.copy()
    counts[5] = depth[5] = 0
    keep = problem.discs.spot != 7
    discs = DiscFeatures(problem.discs.features[keep], problem.discs.spot[keep])
    spots = dataclasses.replace(problem.spots, counts=counts, depth=depth)
    for values in predictions(fit(spots, discs, **problem.frame).ensemble, slide):
        assert torch.isfinite(values).all()


def test_one_state_sees_all_spots_and_has_no_spread(problem, slide) -> None:
    ensemble = fit(problem.spots, problem.discs, **problem.frame, n_states=1).ensemble
    mean, spread, _ = predictions(ensemble, slide)
    assert ensemble.n_states == 1
    assert float(spread.max()) == 0
    assert float(mean.max()) > 0


def test_factors_give_back_genes_that_vary_together() -> None:
    rng = np.random.default_rng(0)
    for n_spots, n_genes in ((80, 12), (12, 80)):
        genes = torch.from_numpy(rng.normal(size=(n_spots, 4)) @ rng.normal(size=(4, n_genes)) + 3).float()
        factors = Factors.of(genes, torch.ones(n_spots, dtype=torch.float64))
        torch.testing.assert_close(factors.genes(factors.values).float(), genes, rtol=1e-4, atol=1e-4)
        assert factors.loading.shape[0] == 4 < FACTORS


def test_anchors_are_spread_over_the_places() -> None:
    places = torch.rand(400, 2, generator=torch.Generator().manual_seed(0))
    chosen = spread_out(places, 50)
    assert len(chosen) == 50
    assert float(torch.cdist(places, chosen).amin(dim=1).max()) < 0.2
    assert spread_out(places, 400) is places


def test_memory_stays_under_what_is_declared(result) -> None:
    n = 20000
    ensemble = result.ensemble
    slide = torch.zeros(n, 12), torch.zeros(n, 2)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        hidden = ensemble.hidden(*slide)
        ensemble.expression(hidden, slice(None))
        ensemble.depth(hidden)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert 0 < peak < ensemble.task_bytes(n, 4) < psutil.virtual_memory().total
    assert hidden.nbytes <= n * SIZES["default"].hidden_bytes(5)


def test_training_leaves_the_data_as_they_were(problem) -> None:
    data = training_data(problem.spots, problem.discs, **problem.frame, seed=0, device=torch.device("cpu"))
    before = data.features.clone(), data.counts.clone()
    train(data, seed=0, n_states=2)
    torch.testing.assert_close(data.features, before[0], rtol=0, atol=0)
    torch.testing.assert_close(data.counts, before[1], rtol=0, atol=0)


def test_a_fit_tells_how_far_it_is(problem, monkeypatch) -> None:
    monkeypatch.setattr("iscale.engine.progress.SECONDS_BETWEEN", 0.0)
    heard: list[float] = []
    with listening(Region(0, 1, 0, 1), lambda region, fraction: heard.append(fraction)):
        fit(problem.spots, problem.discs, **problem.frame, n_states=1)
    assert heard == sorted(heard)
    assert heard[0] < 0.1
    assert heard[-1] == pytest.approx(1)
    assert np.diff(heard).max() < 0.25


def test_blocks_of_spots_do_not_change_what_is_learnt(problem, result, slide, monkeypatch) -> None:
    monkeypatch.setattr("iscale.model.default.SPOT_BLOCK", 30)
    monkeypatch.setattr("iscale.model.additive.SPOT_BLOCK", 30)
    monkeypatch.setattr("iscale.model.default.SPOT_BLOCK", 30)
    monkeypatch.setattr("iscale.model.default.SPOTS_AT_ONCE", 7)
    monkeypatch.setattr("iscale.model.every_gene.SPOTS_AT_ONCE", 7)
    cut = fit(problem.spots, problem.discs, **problem.frame, recipe="default", seed=0)
    for a, b in zip(predictions(cut.ensemble, slide), predictions(result.ensemble, slide), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    design = rng.normal(size=(2, 60, 5))
    targets = design[0] @ rng.normal(size=(5, 3)) + 7 + rng.normal(size=(60, 3)) * [0.1, 1.0, 30.0]
    return tuple(torch.from_numpy(x) for x in (design, rng.uniform(0.5, 2, size=(2, 60)), targets))


def direct(z, w, t, penalty):
    """Ridge regression with a free intercept, from its normal equations."""
    z, w, t = (x.numpy() for x in (z, w, t))
    zc = z - np.average(z, axis=0, weights=w)
    tc = t - np.average(t, axis=0, weights=w)
    b = np.linalg.solve((zc * w[:, None]).T @ zc + penalty * np.eye(z.shape[1]), (zc * w[:, None]).T @ tc)
    return z @ b + np.average(t, axis=0, weights=w) - np.average(z, axis=0, weights=w) @ b


def test_one_penalty_solves_the_normal_equations(data) -> None:
    design, weight, targets = data
    predicted = fit_ridge(design, weight, targets, (4.0,)).predict(design)
    for state in range(2):
        np.testing.assert_allclose(predicted[state], direct(design[state], weight[state], targets, 4.0), rtol=1e-9)


def test_each_target_takes_the_penalty_that_its_noise_asks_for(data) -> None:
    design, weight, targets = data
    predicted = fit_ridge(design, weight, targets).predict(design)[0]
    strongest = direct(design[0], weight[0], targets, PENALTIES[0])
    weakest = direct(design[0], weight[0], targets, PENALTIES[-1])
    np.testing.assert_allclose(predicted[:, 0], weakest[:, 0], rtol=1e-6)
    assert predicted[:, 2].std() < 0.5 * weakest[:, 2].std()
    assert strongest[:, 2].std() <= predicted[:, 2].std() * 1.001


def test_spots_of_no_weight_do_not_count(data) -> None:
    design, weight, targets = data
    weight[:, :20] = 0
    changed = targets.clone()
    changed[:20] += 1000
    a, b = (fit_ridge(design, weight, t) for t in (targets, changed))
    torch.testing.assert_close(a.coefficients, b.coefficients)
    torch.testing.assert_close(a.intercept, b.intercept)


def test_the_path_goes_from_strong_to_weak(data) -> None:
    design, weight, targets = data
    fitted = [error for error, _ in fit_ridge(design, weight, targets).path]
    assert len(fitted) == len(PENALTIES)
    assert fitted == sorted(fitted, reverse=True)


def depth_at_the_rim(moved: int) -> float:
    """Depth of the outermost superpixels over that inside; tissue is alike everywhere, spots are so many off."""
    side, edge, um = 40, 24, 12.0
    rng = np.random.default_rng(1)
    features = rng.normal(size=(side, side, 12)).astype(np.float32)
    centre = np.stack([rng.integers(0, side, 300), rng.integers(0, edge, 300)], axis=1)
    radius_um = np.full(300, 3 * um)

    def discs(at):
        spot, position = disc_rows(at, radius_um, um, (side, side))
        there = position[:, 1] < edge
        return spot[there], position[there]

    measured = np.bincount(discs(centre)[0], minlength=300)
    counts = rng.poisson(20 * measured[:, None], (300, 3)).astype(np.float32)
    said = centre + np.array([0, moved])
    spot, position = discs(said)
    nothing = np.zeros(300, np.int64)
    spots = TrainingSpots(
        ("A", "B", "C"), counts, counts.sum(axis=1), said[:, ::-1] * 16.0 + 8, radius_um, nothing, ("moved",)
    )
    found = fit(spots, DiscFeatures(features[tuple(position.T)], spot), pixel_size_um=um / 16, superpixel_um=um)
    i, j = np.divmod(np.arange(side * side), side)
    places = torch.from_numpy(np.stack([j + 0.5, i + 0.5], axis=1).astype(np.float32) * np.float32(um))
    hidden = found.ensemble.hidden(torch.from_numpy(features.reshape(side * side, -1)), places)
    depth = found.ensemble.depth(hidden).numpy().reshape(side, side)
    return float(depth[:, edge - 1].mean() / depth[:, edge - 10 : edge - 3].mean())


def test_the_rim_is_as_deep_as_the_inside_wherever_the_captures_were_put() -> None:
    """Spots put beside the tissue that they measured would push all their counts into the few superpixels there."""
    for moved in (0, 2, 4):
        assert depth_at_the_rim(moved) == pytest.approx(1, abs=0.3), moved


def test_the_share_on_tissue_is_believed_as_far_as_counts_follow_it(problem) -> None:
    data = training_data(problem.spots, problem.discs, **problem.frame, seed=0, device=torch.device("cpu"))
    discs = Discs.of(data, data.train_spots)
    assert float(discs.share.min()) < 0.6
    assert float((discs.own - 1).abs().max()) < 0.2  # here the tissue is where it is said to be
    wrong = dataclasses.replace(data, depth=torch.full_like(data.depth, 100.0))
    doubted = Discs.of(wrong, wrong.train_spots)
    assert float(doubted.own.min()) < 0.75
    assert float((doubted.precision(0.3).mean() - 1).abs()) < 1e-9
